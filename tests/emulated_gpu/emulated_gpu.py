"""Cards that are not there, for PyTorch's CUDA build and Triton: import it before a card is touched.

PyTorch's allocator, streams, events, graphs and errors, Triton's compiler and its launches are the real ones; what
kernels compute is computed on the CPU. ``.ci/emulated-gpu`` builds what this needs and names the settings.
"""

import contextlib
import inspect
import os
import sys
import types

import emulated_operations
import torch
import torch._decomp
import torch._meta_registrations
import triton.language as tl
import triton.runtime.interpreter as interpreter
from triton.language import core, math, standard
from triton.runtime.jit import JITFunction

_OWN = {
    "set_",
    "resize_",
    "record_stream",
    "is_pinned",
    "_pin_memory",
    "_local_scalar_dense",
    "_reshape_alias",
    "as_strided",
}
_OWN |= {"view", "unfold", "is_set_to", "_resize_output_", "_has_same_storage_numel", "_nested_tensor_from_mask"}
"""Operations that launch no kernel."""

_MADE_OF_OTHERS = {"convolution", "copy_"}
"""Operations that have no CUDA kernel of their own, and would call a library's."""

KERNELS = os.environ.get("EMULATED_GPU_KERNELS", "plain")
"""What computes kvtune's Triton kernels: ``interpreted``, Triton's interpreter, slowly; ``plain``, the same in plain
torch; ``nothing``, with which trials of kernels are taken to succeed."""


def operations():
    """Names of PyTorch's operations that launch kernels on a card."""
    for full in torch._C._dispatch_get_all_op_names():
        space, _, name = full.partition("::")
        base, _, overload = name.partition(".")
        if space != "aten" or base in _OWN or base.lstrip("_").startswith(("empty", "new_")):
            continue
        if not torch._C._dispatch_has_kernel_for_dispatch_key(full, "CUDA"):
            continue
        schema = getattr(getattr(torch.ops.aten, base), overload or "default")._schema
        is_view = any(made.alias_info and not made.alias_info.is_write for made in schema.returns)
        if not is_view and any("Tensor" in str(argument.type) for argument in schema.arguments):
            yield name


@contextlib.contextmanager
def without_warnings():
    """Nothing on stderr: PyTorch names each operation that has two kernels."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)


_interpreted = {}


def interpreted(kernel):
    """A kernel of Triton, and what it calls, for Triton's interpreter."""
    if kernel in _interpreted:
        return _interpreted[kernel]
    function = kernel.fn
    scope = dict(function.__globals__)
    copied = types.FunctionType(
        function.__code__, scope, function.__name__, function.__defaults__, function.__closure__
    )
    for name in ("__annotations__", "__kwdefaults__", "__module__", "__qualname__"):
        setattr(copied, name, getattr(function, name))
    _interpreted[kernel] = interpreter.InterpretedFunction(copied)
    for name, value in list(scope.items()):  # which may name the kernel itself
        if isinstance(value, JITFunction):
            scope[name] = interpreted(value)
    return _interpreted[kernel]


class Language:
    """Triton's language as the interpreter has it, for as long as a kernel is interpreted: compilers need the other."""

    def __init__(self):
        modules = (tl, core, standard, math)
        classes = {value for module in (tl, core) for value in vars(module).values() if inspect.isclass(value)}
        places = {*modules, *(one for one in classes if one.__module__.startswith("triton.language"))}
        before = [(place, dict(vars(place))) for place in places]
        for place in (*modules, tl.tensor):
            for name, value in list(vars(place).items()):
                if isinstance(value, JITFunction):
                    setattr(place, name, interpreted(value))
        for one in (standard.sum, tl.sum):
            interpreter._patch_lang(one.fn)
        interpreter._patch_lang(types.FunctionType((lambda: None).__code__, {"tl": tl}))
        self._changed = [
            (place, name, was.get(name, inspect.Parameter.empty), value)
            for place, was in before
            for name, value in dict(vars(place)).items()
            if value is not was.get(name, inspect.Parameter.empty)
        ]
        self._leave()
        interpreter._patch_lang = lambda function: types.SimpleNamespace(restore=lambda: None)

    @contextlib.contextmanager
    def spoken(self):
        for place, name, _, value in self._changed:
            setattr(place, name, value)
        try:
            yield
        finally:
            self._leave()

    def _leave(self):
        for place, name, was, _ in self._changed:
            if was is inspect.Parameter.empty:
                delattr(place, name)
            else:
                setattr(place, name, was)


def interpret_kernels():
    """After each launch of a kernel of Triton, its work in the interpreter."""
    launch, language = JITFunction.run, Language()

    def run(kernel, *given, grid, warmup, **named):
        launched = launch(kernel, *given, grid=grid, warmup=warmup, **named)
        if not warmup:
            on_host = [emulated_operations.on_host(one) if isinstance(one, torch.Tensor) else one for one in given]

            def work():
                with language.spoken():
                    interpreted(kernel).run(*on_host, grid=grid, warmup=False, **named)

            emulated_operations.add(work)
        return launched

    JITFunction.run = run


def compute_kernels_plainly():
    """After each launch of kvtune's kernels, the same in plain torch."""
    from kvtune.captioning import (
        paged_attention,
        paged_smoothing,
        plain_layers,
        triton_attention,
        triton_layers,
        triton_smoothing,
        triton_tiles,
    )

    def both(name, module, plain, count):
        launch = getattr(module, name)

        def run(*given, **options):
            if name != "attend_tiles":  # in which methods change what they keep
                launch(*given, **options)
            return getattr(plain, name)(*given[:count])

        setattr(module, name, run)

    both("attend", triton_attention, paged_attention, 7)
    both("attend_tiles", triton_tiles, paged_attention, 7)
    both("smooth", triton_smoothing, paged_smoothing, 7)
    for name, count in (("rms_norm", 3), ("silu_times", 2), ("rotate", 4)):
        both(name, triton_layers, plain_layers, count)


def trust_kernels():
    """Kernels that compute nothing are taken for right."""
    from kvtune.captioning import fused, kernels

    kernels.relative_error = fused.relative_error = lambda got, expected: 0.0


torch.cuda.init()
with without_warnings():
    emulated_operations.take_over(sorted({*operations(), *_MADE_OF_OTHERS}))
{"interpreted": interpret_kernels, "plain": compute_kernels_plainly, "nothing": trust_kernels}[KERNELS]()
