"""Applying a method to a Hugging Face model: an attention function, hooks on its decoder, and the way back.

The prompt goes through SDPA untouched. From then on one token comes at a time; its attention is computed here, where
the row entropies are seen, and when the decoder is through with the token, the method's factors move the token's keys
and values in the cache. A method's state lives on the cache that it belongs to, so that it follows the cache through
beam search and two caches never mix.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.generation import GenerationMixin

from kvtune.errors import RequestError
from kvtune.hf import CACHE, CACHE_NAMES, attention_implementation, given_cache, text_decoder
from kvtune.methods.followed_cache import Followed, check_cache, follow, newest
from kvtune.methods.row_attention import ATTENTION, Step
from kvtune.methods.row_state import RowMethod, RowState
from kvtune.methods.smoothing import lerp_

Observer = Callable[[Tensor, Tensor], None]
"""Is called after each decode step with the row entropies of all layers, [layers, rows], and with the factors by which
they were smoothed, of the same shape, NaN where nothing was."""


@contextmanager
def attach(
    model: PreTrainedModel, method: RowMethod | Sequence[RowMethod | None], observer: Observer | None = None
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
    for one in filter(None, method) if isinstance(method, Sequence) else [method]:
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


class _Session:
    """One attachment: sees each forward pass of the decoder, and tells prompt from generated tokens."""

    def __init__(
        self, decoder: Any, method: RowMethod | Sequence[RowMethod | None], observer: Observer | None = None
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
                return arguments, keywords | {"kvtune_step": Step(None, is_prompt=True)}
            cache = DynamicCache(config=decoder.config)
        check_cache(cache)
        past = int(cache.get_seq_length())
        is_prompt = self._is_prompt(past, tokens.shape[1])
        if is_prompt or not isinstance(cache, Followed) or cache.kvtune_session is not self:
            follow(cache, self, self._new_state(tokens))
        elif cache.kvtune_cropped:
            raise RequestError("the cache was cropped after the last step; what the method remembers cannot follow")
        step = Step(cache.kvtune_state, is_prompt)
        if self.observer is not None and not is_prompt:
            step.observed = []
        others = {name: value for name, value in keywords.items() if name not in CACHE_NAMES}
        return arguments, others | {CACHE: cache, "kvtune_step": step}

    @torch.compiler.disable
    def after(self, decoder: Any, arguments: Any, keywords: dict[str, Any], output: Any) -> None:
        """After a decode step, move the new token's keys and values in every layer of the cache."""
        step: Step = keywords["kvtune_step"]
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
        length = int(cache.get_seq_length())
        for layer, key_factor, value_factor in zip(
            step.state.layers, on_keys[..., None, None].unbind(), on_values[..., None, None].unbind(), strict=True
        ):
            keys, values = cache.layers[layer].keys, cache.layers[layer].values
            new = newest(cache.layers[layer], length)
            lerp_(keys[:, :, new], keys[:, :, new - 1], key_factor.to(keys.device))
            lerp_(values[:, :, new], values[:, :, new - 1], value_factor.to(values.device))

    def _tell_observer(self, step: Step) -> None:
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

    def _methods(self, rows: int) -> list[RowMethod | None]:
        methods: list[RowMethod | None] = (
            list(self.method) if isinstance(self.method, Sequence) else [self.method] * rows
        )
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
