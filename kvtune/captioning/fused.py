"""A decoder's small operations as fused kernels: RMSNorm, silu(gate) * up and rotary positions.

A step of a 7B in transformers launches dozens of small kernels a layer, whose time is that of launching them and of
going to memory and back. The modules stay transformers' own; only their forwards are replaced, and only of modules that
have been seen to compute what the kernel computes.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from kvtune.captioning import plain_layers
from kvtune.captioning.kernels import WrongNumbersError, built_or, relative_error

_KINDS = (torch.bfloat16, torch.float16, torch.float32)
"""float64 is for proofs, in which kernels have no part."""

_ROTARY = "apply_rotary_pos_emb"
"""The function by which transformers' attention modules turn queries and keys, looked up where they are defined."""


class Kernels(Protocol):
    """What :mod:`kvtune.captioning.plain_layers` and :mod:`kvtune.captioning.triton_layers` have."""

    def rms_norm(self, hidden: Tensor, weight: Tensor, epsilon: float) -> Tensor: ...
    def silu_times(self, gate: Tensor, up: Tensor) -> Tensor: ...
    def rotate(self, query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor]: ...


class FusedLayers:
    """Parts of a decoder that can run as fused kernels, and do for as long as :meth:`applied` lasts.

    They are RMSNorm modules, MLPs gated by SiLU, and the rotary function of attention modules. What
    is none of these, though it looks like one, is left alone; so are modules that are quantised, in float64, or have a
    forward of someone else's already. Hooks keep working. Where gradients are asked for, and on tensors that a kernel
    does not take, the original runs.

    Parameters
    ----------
    decoder
        A text decoder of transformers, on ``device``.
    device
        Nothing is replaced on a device that is no CUDA device, unless ``kernels`` is given.
    kernels
        :mod:`kvtune.captioning.triton_layers` if not given; nothing is replaced where Triton is not installed. Each is
        tried on the device; one that cannot be built is warned about, and plain torch takes its place.
    """

    def __init__(self, decoder: nn.Module, device: torch.device, kernels: Kernels | None = None) -> None:
        if kernels is None:
            kernels = _triton(device)
        self._forwards: list[tuple[str, nn.Module, Callable[..., Any]]] = []
        self._scopes: list[dict[str, Any]] = []
        if kernels is not None:
            self._parts = _Parts(decoder, kernels, device)
            self._scopes = _scopes_of_rotary(decoder)
            for name, module in decoder.named_modules():
                if "forward" not in module.__dict__ and (forward := self._parts.forward(module)) is not None:
                    self._forwards.append((name, module, forward))

    @contextmanager
    def applied(self) -> Iterator[list[str]]:
        """Replace them within the block.

        Yields
        ------
        list of str
            Names of modules, as in ``decoder.named_modules()``, and of the functions that are replaced.
        """
        with ExitStack() as undo:
            replaced: list[str] = []
            for name, module, forward in self._forwards:
                if "forward" not in module.__dict__:
                    module.forward = forward
                    undo.callback(_give_back, module, forward)
                    replaced.append(name)
            for scope in self._scopes:
                if self._parts.replace_rotary(scope, undo):
                    replaced.append(f"{scope['__name__']}.{_ROTARY}")
            yield replaced


class _Parts:
    """What can be replaced by ``kernels`` on a device; each kernel is tried before it is trusted."""

    def __init__(self, decoder: nn.Module, kernels: Kernels, device: torch.device) -> None:
        self._kernels, self._device = kernels, device
        self._dtypes = {weight.dtype for weight in decoder.parameters() if self._fits(weight)}
        self._works = functools.cache(self._try)
        self._is_half_split = functools.cache(_is_half_split)

    def forward(self, module: nn.Module) -> Callable[..., Any] | None:
        """What computes the same as ``module.forward``, or None."""
        weights = list(module.parameters())
        if not weights or not self._fits(*weights):
            return None
        dtype, size = weights[0].dtype, weights[0].shape[-1]
        if _is_rms_norm(module) and self._works("rms_norm", dtype, size):
            return self._norm_forward(module)
        if _is_gated_mlp(module) and self._works("silu_times", dtype, size):
            return self._mlp_forward(module)
        return None

    def replace_rotary(self, scope: dict[str, Any], undo: ExitStack) -> bool:
        """Replace the rotary function of a module of Python, if it is the usual one; one replacement serves all."""
        if not isinstance(scope[_ROTARY], _Rotary):
            if not self._dtypes or not self._is_half_split(scope[_ROTARY]):
                return False
            if not all(self._works("rotate", dtype, 128) for dtype in self._dtypes):
                return False
            scope[_ROTARY] = _Rotary(scope[_ROTARY], self._kernels, self._fits)
        rotary = scope[_ROTARY]
        rotary.users += 1
        undo.callback(rotary.leave, scope)
        return True

    def _fits(self, *tensors: Tensor) -> bool:
        """Whether a kernel may take these: numbers of one type, on the device."""
        dtype = tensors[0].dtype
        return dtype in _KINDS and all(
            tensor.dtype == dtype and tensor.device.type == self._device.type and tensor.numel() for tensor in tensors
        )

    def _norm_forward(self, module: Any) -> Callable[..., Any]:
        epsilon = _epsilon(module)

        def fused(hidden: Tensor) -> Tensor:
            return self._kernels.rms_norm(hidden, module.weight, epsilon)

        return self._where_it_fits(module, fused, lambda: module.weight)

    def _mlp_forward(self, module: Any) -> Callable[..., Any]:
        def fused(hidden: Tensor) -> Tensor:
            return module.down_proj(self._kernels.silu_times(module.gate_proj(hidden), module.up_proj(hidden)))

        return self._where_it_fits(module, fused, lambda: module.gate_proj.weight)

    def _where_it_fits(
        self, module: nn.Module, fused: Callable[[Tensor], Tensor], weight: Callable[[], Tensor]
    ) -> Callable[..., Any]:
        original = module.forward

        @functools.wraps(original)
        def forward(*arguments: Any, **named: Any) -> Any:
            alone = len(arguments) == 1 and not named and not torch.is_grad_enabled()
            if alone and self._fits(arguments[0], weight()):
                return fused(arguments[0])
            return original(*arguments, **named)

        return forward

    def _try(self, name: str, dtype: torch.dtype, size: int) -> bool:
        """Whether a kernel can be built and computes on the device what plain torch does."""
        shapes: dict[str, list[tuple[int, ...]]] = {
            "rms_norm": [(2, size), (size,)],
            "silu_times": [(2, size)] * 2,
            "rotate": [(2, 4, 1, size), (2, 2, 1, size), (2, 1, size), (2, 1, size)],
        }
        numbers = [_random(*shape).to(self._device, dtype) for shape in shapes[name]]
        more = (1e-6,) if name == "rms_norm" else ()

        def tried() -> bool:
            with torch.no_grad():
                got = getattr(self._kernels, name)(*numbers, *more)
            expected = getattr(plain_layers, name)(*(number.double() for number in numbers), *more)
            pairs = zip(got, expected, strict=True) if isinstance(got, tuple) else [(got, expected)]
            if not all(relative_error(one, right) <= 8 * torch.finfo(dtype).eps for one, right in pairs):
                raise WrongNumbersError(f"is wrong on {self._device} in {dtype}")
            return True

        return built_or(False, name, tried, "is not fused, for its kernel")


class _Rotary:
    """A rotary function that takes the kernel where it can; in its place until its last user has left."""

    def __init__(self, original: Callable[..., Any], kernels: Kernels, fits: Callable[..., bool]) -> None:
        functools.update_wrapper(self, original)
        self._original, self._kernels, self._fits = original, kernels, fits
        self.users = 0

    def __call__(self, q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, *arguments: Any, **named: Any) -> Any:
        alone = not arguments and not named and not torch.is_grad_enabled()
        if not (alone and self._fits(q, k, cos, sin) and _is_usual(q, k, cos, sin)):
            return self._original(q, k, cos, sin, *arguments, **named)
        rows, _, tokens, _ = q.shape
        if tokens == 1:
            return self._kernels.rotate(q, k, cos, sin)
        turns = (turn.expand(rows, -1, -1).flatten(0, 1)[:, None] for turn in (cos, sin))
        turned = self._kernels.rotate(_rows_of(q), _rows_of(k), *turns)
        return tuple(heads[:, :, 0].unflatten(0, (rows, tokens)).transpose(1, 2) for heads in turned)

    def leave(self, scope: dict[str, Any]) -> None:
        self.users -= 1
        if self.users == 0 and scope[_ROTARY] is self:
            scope[_ROTARY] = self._original


def _triton(device: torch.device) -> Kernels | None:
    if device.type != "cuda":
        return None
    try:
        from kvtune.captioning import triton_layers
    except ImportError:
        return None
    return triton_layers


def _give_back(module: nn.Module, forward: Callable[..., Any]) -> None:
    if module.__dict__.get("forward") is forward:
        del module.forward


def _is_rms_norm(module: nn.Module) -> bool:
    """Whether it is one, and of the kind that multiplies by its weight, which some do not."""
    weight = module._parameters.get("weight")
    if not type(module).__name__.endswith("RMSNorm") or weight is None or weight.ndim != 1 or _epsilon(module) is None:
        return False
    if len(module._parameters) > 1 or module._buffers or module._modules:
        return False
    other = _random(len(weight)).to(weight.dtype)
    hidden = (3 * _random(2, len(weight))).to(weight.dtype)
    like_it = _with(module, _parameters={"weight": other})
    return _equal(lambda: type(module).forward(like_it, hidden), plain_layers.rms_norm(hidden, other, _epsilon(module)))


def _epsilon(module: nn.Module) -> Any:
    return getattr(module, "variance_epsilon", getattr(module, "eps", None))


def _is_gated_mlp(module: nn.Module) -> bool:
    names = {"gate_proj", "up_proj", "down_proj"}
    linears = {name: module._modules.get(name) for name in names}
    if any(type(linear) is not nn.Linear for linear in linears.values()) or module._modules.keys() - names - {"act_fn"}:
        return False
    if module._parameters or module._buffers:
        return False
    dtype = next(module.parameters()).dtype
    gate, up, down = (_random(16, 16).to(dtype) for _ in range(3))
    hidden = _random(2, 16).to(dtype)
    small = {"gate_proj": _Times(gate), "up_proj": _Times(up), "down_proj": _Times(down)}
    like_it = _with(module, _modules={**module._modules, **small})
    right = plain_layers.silu_times(hidden @ gate, hidden @ up) @ down
    return _equal(lambda: type(module).forward(like_it, hidden), right)


class _Times(nn.Module):
    """A linear layer for a trial."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = matrix

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden @ self.matrix


def _scopes_of_rotary(decoder: nn.Module) -> list[dict[str, Any]]:
    """The globals, each once, in which forwards of ``decoder``'s modules look the rotary function up."""
    scopes: dict[int, dict[str, Any]] = {}
    for kind in {type(module) for module in decoder.modules()}:
        forward = inspect.unwrap(kind.forward)
        if _ROTARY in getattr(getattr(forward, "__code__", None), "co_names", ()) and _ROTARY in forward.__globals__:
            scopes[id(forward.__globals__)] = forward.__globals__
    return list(scopes.values())


def _is_half_split(rotary: Callable[..., Any]) -> bool:
    """Whether it is the usual one: halves of a head turned together, cos and sin the same for all heads."""
    for dtype in _KINDS:
        numbers = [_random(*shape).to(dtype) for shape in ((2, 4, 1, 16), (2, 2, 1, 16), (2, 1, 16), (2, 1, 16))]
        if not _equal(functools.partial(rotary, *numbers), plain_layers.rotate(*numbers)):
            return False
    return True


def _is_usual(query: Tensor, key: Tensor, cos: Tensor, sin: Tensor) -> bool:
    """Whether the shapes are those of attention modules: a head's queries and keys of the same tokens, cos and sin of
    each row or of all."""
    rows, _, tokens, head_dim = query.shape if query.ndim == 4 else (0, 0, 0, 1)
    return (
        head_dim % 2 == 0
        and key.ndim == 4
        and key.shape == (rows, key.shape[1], tokens, head_dim)
        and cos.shape == sin.shape
        and cos.shape in ((rows, tokens, head_dim), (1, tokens, head_dim))
    )


def _rows_of(heads: Tensor) -> Tensor:
    """[rows, heads, tokens, head_dim], each token as a row of its own; no copy of what a projection gives."""
    return heads.transpose(1, 2).flatten(0, 1)[:, :, None]


def _with(module: nn.Module, **parts: dict[str, Any]) -> Any:
    """A shallow copy of ``module`` with other weights or submodules."""
    other = copy.copy(module)
    other.__dict__.update(parts)
    return other


_TRIALS = torch.Generator().manual_seed(0)
"""Apart from the generator that others draw from."""


def _random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=_TRIALS, device="cpu", dtype=torch.float32)


def _equal(compute: Callable[[], Any], right: Any) -> bool:
    """Whether it computes exactly this; a module that cannot be tried is none that is known."""
    try:
        with torch.no_grad():
            got = compute()
    except Exception:
        return False
    pairs = zip(got, right, strict=True) if isinstance(right, tuple) else [(got, right)]
    return all(one.dtype == other.dtype and torch.equal(one, other) for one, other in pairs)
