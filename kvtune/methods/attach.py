"""Applying a method to a Hugging Face model: an attention function, hooks on its decoder, and the way back.

The prompt goes through SDPA untouched. From then on one token comes at a time; its attention is computed here, where
the row entropies are seen, and when the decoder is through with the token, the method's factors move the token's keys
and values in the cache. A method's state lives on the cache that it belongs to, so that it follows the cache through
beam search and two caches never mix.
"""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface, DynamicCache, PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer, StaticLayer
from transformers.generation import GenerationMixin
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from kvtune.errors import RequestError
from kvtune.methods.base import Method, RowState
from kvtune.methods.cache_name import CACHE, CACHE_NAMES, given_cache
from kvtune.methods.smoothing import lerp_, row_entropy

Observer = Callable[[Tensor, Tensor], None]
"""Is called after each decode step with the row entropies of all layers, [layers, rows], and with the factors by which
they were smoothed, of the same shape, NaN where nothing was."""

ATTENTION = "kvtune"
"""The name under which the attention function and its mask function are registered with transformers."""


def text_decoder(model: Any) -> Any:
    """The stack of decoder layers that writes the text.

    Raises
    ------
    RequestError
        If the model has none that kvtune knows how to reach.
    """
    decoder: Any = model.get_decoder() if hasattr(model, "get_decoder") else model
    if not hasattr(decoder, "layers") and hasattr(decoder, "get_decoder"):  # a causal language model within the model
        decoder = decoder.get_decoder()
    layers = getattr(decoder, "layers", None)
    if not isinstance(layers, nn.ModuleList) or not all(hasattr(layer, "self_attn") for layer in layers):
        raise RequestError(f"{type(model).__name__} is not supported: its text decoder has no plain list of layers")
    if getattr(decoder, "_supports_attention_backend", False) is False:
        raise RequestError(f"{type(model).__name__} is not supported: its decoder takes no attention function")
    return decoder


@contextmanager
def attention_implementation(model: Any, name: str) -> Iterator[None]:
    """Let the text decoder of ``model`` use the registered attention function ``name`` for a while."""
    configs = (text_decoder(model).config, model.config.get_text_config(decoder=True))
    before = [config._attn_implementation for config in configs]
    try:
        for config in configs:
            config._attn_implementation = name
        yield
    finally:
        for config, implementation in zip(configs, before, strict=True):
            config._attn_implementation = implementation


@contextmanager
def attach(
    model: PreTrainedModel, method: Method | Sequence[Method | None], observer: Observer | None = None
) -> Iterator[PreTrainedModel]:
    """Apply ``method`` to ``model`` until the block ends, also by an error.

    Parameters
    ----------
    model
        A Hugging Face model that generates text.
    method
        One method for every row of a batch, or a list with one a row, all of one kind; None leaves its row alone.
    observer
        Looks on and changes nothing: the tokens are those without it.

    Raises
    ------
    RequestError
        If the method does not fit the model, another one is attached already, or, inside the block, ``generate`` is
        asked for something in which the method would not be right.
    """
    decoder = text_decoder(model)
    for one in [method] if isinstance(method, Method) else filter(None, method):
        one.check_layers(len(decoder.layers))
    if hasattr(decoder, "_kvtune_session"):
        raise RequestError("a method is attached to this model already; leave its with block first")
    session = _Session(decoder, method, observer)
    with ExitStack() as undo:
        decoder._kvtune_session = session
        undo.callback(delattr, decoder, "_kvtune_session")
        undo.enter_context(attention_implementation(model, ATTENTION))
        undo.callback(decoder.register_forward_pre_hook(session.before, with_kwargs=True).remove)
        undo.callback(decoder.register_forward_hook(session.after, with_kwargs=True).remove)
        writers: list[Any] = [module for module in model.modules() if isinstance(module, GenerationMixin)]
        for writer in writers:
            undo.callback(_restore, writer, "generate", vars(writer).get("generate"))
            writer.generate = session.watch(writer.generate)
        yield model


@dataclasses.dataclass
class _Step:
    """One forward pass of the decoder, as the attention function sees it."""

    state: RowState | None
    is_prompt: bool
    entropies: list[Tensor] = dataclasses.field(default_factory=list)
    """Of the layers in ``state.layers``, in order, each [rows]."""
    observed: list[Tensor] | None = None
    """Entropies of all layers, where somebody looks on."""


class _Session:
    """One attachment: sees each forward pass of the decoder, and tells prompt from generated tokens."""

    def __init__(
        self, decoder: Any, method: Method | Sequence[Method | None], observer: Observer | None = None
    ) -> None:
        self.decoder = decoder
        self.method = method
        self.observer = observer
        self.prompt_length: int | None = None
        """Tokens of the prompt while ``generate`` runs; None in a loop of the user's own."""

    def watch(self, generate: Callable[..., Any]) -> Callable[..., Any]:
        """``generate``, with the length of its prompt noted, so that chunks of it are told from generated tokens."""

        @functools.wraps(generate)
        def watched(*arguments: Any, **keywords: Any) -> Any:
            outer, self.prompt_length = self.prompt_length, _prompt_length(*arguments, **keywords)
            try:
                return generate(*arguments, **keywords)
            finally:
                self.prompt_length = outer

        return watched

    @torch.compiler.disable
    def before(self, decoder: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Find the cache and hand the step, with the state that belongs to the cache, to the attention function."""
        tokens = keywords.get("inputs_embeds")
        if tokens is None:
            tokens = arguments[0] if arguments else keywords["input_ids"]
        cache = given_cache(keywords)
        if cache is None:
            if self.prompt_length is not None:
                raise RequestError("the method works on the KV cache: call generate() without use_cache=False")
            use_cache = keywords.get("use_cache")
            if not (decoder.config.use_cache if use_cache is None else use_cache):
                return arguments, keywords | {"kvtune_step": _Step(None, is_prompt=True)}
            cache = DynamicCache(config=decoder.config)
        _check_cache(cache)
        past = int(cache.get_seq_length())
        is_prompt = self._is_prompt(past, tokens.shape[1])
        if is_prompt or not isinstance(cache, _Followed) or cache.kvtune_session is not self:
            _follow(cache, self, self._new_state(tokens))
        elif cache.kvtune_cropped:
            raise RequestError("the cache was cropped after the last step; what the method remembers cannot follow")
        step = _Step(cache.kvtune_state, is_prompt)
        if self.observer is not None and not is_prompt:
            step.observed = []
        others = {name: value for name, value in keywords.items() if name not in CACHE_NAMES}
        return arguments, others | {CACHE: cache, "kvtune_step": step}

    @torch.compiler.disable
    def after(self, decoder: Any, arguments: Any, keywords: dict[str, Any], output: Any) -> None:
        """After a decode step, move the new token's keys and values in every layer of the cache."""
        step: _Step = keywords["kvtune_step"]
        cache = given_cache(keywords)
        if step.is_prompt and cache is not None:
            self._edit_prefix(cache, keywords.get("attention_mask"))
        if step.observed:
            self._tell_observer(step)
        if step.is_prompt or not step.entropies:
            return
        assert step.state is not None
        device = step.entropies[0].device
        on_keys, on_values = step.state.factors(torch.stack([entropy.to(device) for entropy in step.entropies]))
        new = int(cache.get_seq_length()) - 1
        for layer, key_factor, value_factor in zip(
            step.state.layers, on_keys[..., None, None].unbind(), on_values[..., None, None].unbind(), strict=True
        ):
            keys, values = cache.layers[layer].keys, cache.layers[layer].values
            lerp_(keys[:, :, new], keys[:, :, new - 1], key_factor.to(keys.device))
            lerp_(values[:, :, new], values[:, :, new - 1], value_factor.to(values.device))

    def _tell_observer(self, step: _Step) -> None:
        assert self.observer is not None and step.observed is not None
        device = step.observed[0].device
        entropy = torch.stack([one.to(device) for one in step.observed])
        smoothing = torch.full_like(entropy, torch.nan)
        if step.state is not None and step.entropies:
            layers = slice(step.state.layers.start, step.state.layers.stop)
            smoothing[layers] = step.state.smoothing(entropy[layers])
        self.observer(entropy, smoothing)

    def _edit_prefix(self, cache: Any, mask: Tensor | None) -> None:
        """Once the whole prompt is in the cache, let methods that touch it do so, each on its own rows."""
        length = int(cache.get_seq_length())
        if self.prompt_length not in (None, length):
            return
        layers = [layer for layer in cache.layers if layer.is_initialized]
        for row, method in enumerate(self._methods(len(layers[0].keys))):
            if method is None or method.prefix_key is None:
                continue
            one = slice(row, row + 1)
            tokens = int(mask[row].sum()) if mask is not None and mask.ndim == 2 else length
            method.edit_prefix(
                [layer.keys[one, :, length - tokens : length] for layer in layers],
                [layer.values[one, :, length - tokens : length] for layer in layers],
            )

    def _methods(self, rows: int) -> list[Method | None]:
        methods: list[Method | None] = [self.method] * rows if isinstance(self.method, Method) else list(self.method)
        if len(methods) != rows:
            raise RequestError(f"{len(methods)} methods were given for a batch of {rows} rows; give one a row")
        return methods

    def _is_prompt(self, past: int, new: int) -> bool:
        if self.prompt_length is not None:
            if past + new <= self.prompt_length:
                return True
            if past >= self.prompt_length and new == 1:
                return False
            raise RequestError(
                "several tokens in one decode step (assisted decoding, prompt lookup): the method is defined for one "
                "token at a time; decode without an assistant"
            )
        if past and new > 1:
            raise RequestError(
                "several tokens at once on a filled cache, outside generate(): pass the whole prompt in one forward "
                "pass, then one token at a time, or call generate()"
            )
        return past == 0

    def _new_state(self, tokens: Tensor) -> RowState | None:
        rows = len(tokens)
        methods = self._methods(rows)
        kinds = {type(method) for method in methods if method is not None}
        if len(kinds) > 1:
            raise RequestError(f"methods of one kind at a time, not {', '.join(sorted(k.name for k in kinds))}")
        if not kinds:
            return None
        state = kinds.pop().row_state(rows, len(self.decoder.layers), tokens.device)
        state.set_rows(range(rows), methods)
        return state


class _Followed:
    """Makes a cache take a method's state along when its rows change places.

    A mixin put in front of the cache's own class, because a copy of the cache must take a copy of the state.
    """

    kvtune_session: _Session
    kvtune_state: RowState | None
    kvtune_cropped: bool

    def reorder_cache(self, beam_idx: Tensor) -> None:
        super().reorder_cache(beam_idx)  # type: ignore[misc]
        self._reorder_state(beam_idx)

    def batch_select_indices(self, indices: Tensor) -> None:
        super().batch_select_indices(indices)  # type: ignore[misc]
        self._reorder_state(indices)

    def batch_repeat_interleave(self, repeats: int) -> None:
        super().batch_repeat_interleave(repeats)  # type: ignore[misc]
        if self.kvtune_state is not None:
            rows = torch.arange(self.layers[0].keys.shape[0] // repeats)  # type: ignore[attr-defined]
            self._reorder_state(rows.repeat_interleave(repeats))

    def crop(self, tokens_to_remove: int) -> None:
        super().crop(tokens_to_remove)  # type: ignore[misc]
        self.kvtune_cropped |= tokens_to_remove != 0

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        memo[id(self.kvtune_session)] = self.kvtune_session
        copied = object.__new__(type(self))
        memo[id(self)] = copied
        copied.__dict__.update({key: copy.deepcopy(value, memo) for key, value in self.__dict__.items()})
        return copied

    def _reorder_state(self, index: Tensor) -> None:
        if self.kvtune_state is not None:
            self.kvtune_state.reorder(index)


@functools.cache
def _followed(kind: Any) -> Any:
    return type(kind.__name__, (_Followed, kind), {})


def _follow(cache: Any, session: _Session, state: RowState | None) -> None:
    if not isinstance(cache, _Followed):
        kind: Any = type(cache)
        cache.__class__ = _followed(kind)
    cache.kvtune_session, cache.kvtune_state, cache.kvtune_cropped = session, state, False


def _check_cache(cache: Any) -> None:
    """Refuse caches whose tensors cannot be smoothed where they lie."""
    kinds: set[Any] = {type(layer) for layer in getattr(cache, "layers", ())}
    kinds.add(getattr(cache, "layer_class_to_replicate", None) or DynamicLayer)
    if not isinstance(cache, Cache) or cache.offloading or not kinds <= {DynamicLayer, StaticLayer}:
        raise RequestError(
            f"the method cannot smooth the cache {type(cache).__name__}: use a plain dynamic or "
            "static cache, on the device, without quantization, offloading or a sliding window"
        )


def _prompt_length(*arguments: Any, **keywords: Any) -> int | None:
    """Cache positions that the prompt of a ``generate`` call fills; None if the call does not say."""
    inputs = [*arguments[:1], *map(keywords.get, ("inputs", "input_ids", "inputs_embeds", "attention_mask"))]
    # Pixel values may stand first: images have four axes or more, prompts two, embedded prompts three.
    lengths = [tensor.shape[1] for tensor in inputs if isinstance(tensor, Tensor) and tensor.ndim in (2, 3)]
    if not lengths:
        return None
    cache = given_cache(keywords)
    past = int(cache.get_seq_length()) if isinstance(cache, Cache) else 0
    # With only the new tokens given, the cache comes on top; the whole conversation, or its mask, is longer than it.
    return max(lengths) if max(lengths) > past else max(lengths) + past


def _restore(module: nn.Module, name: str, before: Any) -> None:
    if before is None:
        delattr(module, name)
    else:
        setattr(module, name, before)


@torch.compiler.disable
def _attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    kvtune_step: _Step | None = None,
    **keywords: Any,
) -> tuple[Tensor, Tensor | None]:
    """SDPA for the prompt and for layers that the method leaves alone; else attention whose rows are looked at.

    Shapes as transformers passes them: query [rows, heads, tokens, head_dim], key and value
    [rows, kv_heads, positions, head_dim]; returns [rows, tokens, heads, head_dim] and the weights.
    """
    state = kvtune_step.state if kvtune_step else None
    if kvtune_step is None or state is None or kvtune_step.is_prompt or module.layer_idx not in state.layers:
        output, weights = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **keywords)
        if state is not None and state.smooths_output and module.layer_idx in state.layers:
            state.start_outputs(torch.arange(len(output), device=output.device), module.layer_idx, output[:, -1])
        if kvtune_step is not None and kvtune_step.observed is not None:
            kvtune_step.observed.append(row_entropy(_weights(query, key, attention_mask, scaling)))
        return output, weights
    rows, heads, _, _ = query.shape
    weights = _weights(query, key, attention_mask, scaling)
    entropy = row_entropy(weights)
    kvtune_step.entropies.append(entropy)
    if kvtune_step.observed is not None:
        kvtune_step.observed.append(entropy)
    weights = weights.to(query.dtype)
    output = torch.matmul(weights, value).view(rows, heads, value.shape[-1])
    if state.smooths_output:
        output = state.smooth_output(module.layer_idx, entropy, output)
    return output[:, None], weights.view(rows, heads, 1, -1)


def _weights(query: Tensor, key: Tensor, attention_mask: Tensor | None, scaling: float) -> Tensor:
    """Attention of one new token, [rows, kv_heads, group, positions], at least float32; arguments as _attention's."""
    rows, _, _, head_dim = query.shape
    scores = torch.matmul(query.view(rows, key.shape[1], -1, head_dim), key.transpose(2, 3)) * scaling
    if attention_mask is not None:
        scores = _masked(scores, attention_mask)
    return torch.softmax(scores, dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32))


def _masked(scores: Tensor, mask: Tensor) -> Tensor:
    """Scores [rows, kv_heads, group, positions] under a mask [rows, 1 or heads, 1, positions], boolean or additive."""
    if mask.shape[1] != 1:
        mask = mask.view(*scores.shape[:3], -1)
    if mask.dtype == torch.bool:
        return scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    return scores + mask


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
