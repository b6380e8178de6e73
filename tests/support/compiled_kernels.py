"""Triton kernels compiled for a GPU on a machine without one, and what they take there."""

import os
import re
import subprocess
import tempfile
from dataclasses import dataclass

ARCHITECTURES = (80, 89, 90)
"""A100; L4, RTX 4090; H100, H200."""


@dataclass(frozen=True)
class Report:
    """What one kernel takes.

    Attributes
    ----------
    registers
        Of a thread.
    local
        Bytes of a thread's stack and local memory; where registers spill, they spill to these.
    shared
        Bytes of shared memory of a program.
    ahead
        Copies into shared memory that go on while a loop computes; 0 where it waits for all, None without a loop.
    """

    registers: int
    local: int
    shared: int
    ahead: int | None = None


def compiled(fn, signature, constants, arch, aligned=None, num_warps=4, num_stages=3):
    """Compile a kernel with the types of a launch.

    Parameters
    ----------
    fn
        A function under ``triton.jit``.
    signature
        Argument to Triton's name of its type, such as ``"*bf16"`` or ``"i32"``.
    constants
        Constant to its value.
    arch
        Compute capability, such as 90.
    aligned
        Arguments that can be divided by 16; all pointers if not given.

    Returns
    -------
    Report
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    types = {name: signature.get(name, "constexpr") for name in fn.arg_names}
    assert signature.keys() | constants.keys() == types.keys(), "arguments without a type"
    if aligned is None:
        aligned = [name for name, kind in signature.items() if kind.startswith("*")]
    attributes = {(fn.arg_names.index(name),): [["tt.divisibility", 16]] for name in aligned}
    source = ASTSource(fn=fn, signature=types, constexprs=constants, attrs=attributes)
    options = {"num_warps": num_warps, "num_stages": num_stages, "enable_fp_fusion": True}
    kernel = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    used = _resources(kernel.asm["cubin"], os.path.dirname(triton.__file__))
    return Report(used["REG"], used["STACK"] + used["LOCAL"], kernel.metadata.shared, _ahead(kernel.asm["ttgir"]))


def _ahead(code):
    first_wait = re.search(r"ttg\.async_wait .*?num = (\d+)", code.partition("scf.for")[2])
    return int(first_wait[1]) if first_wait else None


def _resources(cubin, triton_folder):
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        tool = os.path.join(triton_folder, "backends", "nvidia", "bin", "cuobjdump")
        command = [tool, "--dump-resource-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {name: int(number) for name, number in re.findall(r"(REG|STACK|LOCAL):(\d+)", text)}
