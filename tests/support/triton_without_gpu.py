"""Triton kernels run in Triton's interpreter, which needs no GPU and must be chosen before triton is imported."""

import os
import subprocess
import sys
from importlib.metadata import version
from importlib.util import find_spec

import pytest
from packaging.version import Version

needs_triton = pytest.mark.skipif(
    find_spec("triton") is None, reason="triton is not installed; it comes with torch's CUDA builds"
)


def interpreted(code):
    """What ``code`` prints in a process of its own, in which kernels are interpreted."""
    import triton

    if Version(triton.__version__) < Version("3.7") and Version(version("numpy")) >= Version("2.4"):
        pytest.skip("the interpreter of Triton 3.6 and older fails with numpy 2.4 and newer")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
