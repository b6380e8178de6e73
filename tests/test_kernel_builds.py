"""Why a kernel could not be built is a line, with the cure where the machine lacks what Triton needs."""

import importlib.util
import subprocess
import sysconfig

import pytest

from kvtune import doctor, kernel_builds
from kvtune.kernel_builds import missing_for_builds, why_not_built

needs_triton = pytest.mark.skipif(not importlib.util.find_spec("triton"), reason="no triton here")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with Triton, gcc and Python's headers, whose parts tests take away."""
    monkeypatch.setattr(kernel_builds, "find_spec", lambda name: name)
    monkeypatch.setattr(sysconfig, "get_paths", lambda scheme=None: {"include": str(tmp_path / "include")})
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("CC", raising=False)
    for file in ("include/Python.h", "bin/gcc"):
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).write_text("#!/bin/sh\n")
    (tmp_path / "bin" / "gcc").chmod(0o755)
    return tmp_path


def test_nothing_is_missing_where_all_is_there(machine, monkeypatch):
    assert missing_for_builds() is None
    (machine / "bin" / "gcc").rename(machine / "bin" / "cc-12")
    monkeypatch.setenv("CC", "cc-12")
    assert missing_for_builds() is None
    assert why_not_built(RuntimeError("its own")) == "its own"
    assert why_not_built(AssertionError()) == "AssertionError"


def test_what_is_missing_is_named_with_its_cure(machine, monkeypatch):
    failed = subprocess.CalledProcessError(1, ["gcc", "/tmp/tmpab12/cuda_utils.c", "-O3"])
    (machine / "include" / "Python.h").unlink()
    assert why_not_built(failed).startswith("Python's headers are missing")
    assert "apt install python3-dev" in why_not_built(failed)
    (machine / "bin" / "gcc").unlink()
    assert why_not_built(RuntimeError("Failed to find C compiler.")).startswith("there is no C compiler; install gcc")
    monkeypatch.setenv("CC", "icc -fast")
    assert why_not_built(FileNotFoundError("icc")).startswith(
        "there is no C compiler 'icc -fast', as CC says; unset CC"
    )
    monkeypatch.setattr(kernel_builds, "find_spec", lambda name: None)
    assert why_not_built(ModuleNotFoundError("triton")) == "triton is not installed; pip install triton"


@needs_triton
def test_triton_asks_for_the_same(machine):
    """Its own build of a C file calls the compiler with those headers, and fails where one is said to be missing."""
    from triton.runtime.build import _build

    def build():
        return _build("launcher", str(machine / "launcher.c"), str(machine), [], [], [], [])

    (machine / "bin" / "gcc").write_text(f'#!/bin/sh\necho "$@" > {machine}/called')
    build()
    assert f"-I{machine}/include" in (machine / "called").read_text().split()
    (machine / "bin" / "gcc").unlink()
    with pytest.raises((RuntimeError, OSError)):
        build()
    assert missing_for_builds()


@needs_triton
def test_a_compiler_s_error_is_told_by_its_fault_and_not_by_the_code_above_it():
    import ast

    from triton.compiler.errors import CompilationError

    source = "def kernel(x):\n    helper(x)"
    inner = CompilationError(source, ast.parse(source).body[0], "Loop-carried variable tile has\n  initial type")
    try:
        raise CompilationError(source, ast.parse(source).body[0], repr(inner)) from inner
    except CompilationError as error:
        assert "Loop-carried" not in str(error).splitlines()[0]
        assert why_not_built(error) == "Loop-carried variable tile has initial type"


def test_doctor_says_what_kernels_need(machine):
    assert doctor.check_kernels().state == "ok"
    (machine / "bin" / "gcc").unlink()
    check = doctor.check_kernels()
    assert (check.state, check.found) == (
        "warning",
        "there is no C compiler: attention in plain torch, several times slower",
    )
    assert check.cure.startswith("install gcc")
