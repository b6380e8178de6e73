"""Applying a method to a Hugging Face model: an attention function, hooks on its decoder, and the way back.

The prompt goes through SDPA, and what a method changes of its last tokens is computed after it. From then on one token
comes at a time; its attention is computed here, and when the decoder is through with the token, methods may draw its
keys and values in the cache. A method's state lives on the cache that it belongs to, so that it follows the cache
through beam search and two caches never mix.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.generation import GenerationMixin

from kvtune.errors import RequestError
from kvtune.hf import (
    CACHE,
    CACHE_NAMES,
    attention_implementation,
    given_cache,
    head_sizes,
    replaced,
    text_decoder,
)
from kvtune.methods.decoder import Decoder
from kvtune.methods.facts import AnyFact, Depth, PromptFacts
from kvtune.methods.followed_cache import Followed, check_cache, follow
from kvtune.methods.look_ahead import look_ahead
from kvtune.methods.prompt_arguments import prompt_length, token_ids, visual_tokens_of_rows
from kvtune.methods.row_attention import ATTENTION, BatchMethods, Step
from kvtune.methods.row_methods import show_layer
from kvtune.methods.row_state import ActingMethod, first_acting

Observer = Callable[[Tensor, Tensor], None]
"""Is called after each decode step with the row entropies of all layers, [layers, rows], and with the factors by which
they were smoothed, of the same shape, NaN where nothing was."""


@contextmanager
def attach(
    model: PreTrainedModel, method: ActingMethod | Sequence[ActingMethod | None], observer: Observer | None = None
) -> Iterator[PreTrainedModel]:
    """Apply ``method`` to ``model`` until the block ends, also by an error.

    Parameters
    ----------
    model
        A Hugging Face model that generates text.
    method
        One method for every row of a batch, or a list with one a row; None leaves its row alone.
    observer
        Looks on and changes nothing: the tokens are those without it.

    Raises
    ------
    RequestError
        If the method does not fit the model, another one is attached already, or, inside the block, ``generate`` is
        asked for something in which the method would not be right.
    """
    decoder = text_decoder(model)
    session = _Session(model, decoder, method, observer)
    for one in filter(None, method) if isinstance(method, Sequence) else [method]:
        one.check_model(session.decoder)
    if hasattr(decoder, "_kvtune_session"):
        raise RequestError("a method is attached to this model already; leave its with block first")
    with ExitStack() as undo:
        undo.enter_context(replaced(decoder, "_kvtune_session", session))
        undo.enter_context(attention_implementation(model, ATTENTION))
        undo.callback(model.register_forward_pre_hook(session.note_ids, with_kwargs=True).remove)
        undo.callback(decoder.register_forward_pre_hook(session.before, with_kwargs=True).remove)
        undo.callback(decoder.register_forward_hook(session.after, with_kwargs=True).remove)
        for number, layer in enumerate(decoder.layers):
            undo.callback(layer.register_forward_hook(session.shows(number)).remove)
        writers: list[Any] = [module for module in model.modules() if isinstance(module, GenerationMixin)]
        for writer in writers:
            undo.enter_context(replaced(writer, "generate", session.watch(writer.generate)))
        yield model


class _Session:
    """One attachment: sees each forward pass of the decoder, and tells prompt from generated tokens."""

    def __init__(
        self,
        model: Any,
        decoder: Any,
        method: ActingMethod | Sequence[ActingMethod | None],
        observer: Observer | None,
    ) -> None:
        self.vlm: Any = getattr(model, "kvtune_vlm", lambda: None)()
        """What was loaded with the model, which knows where in the picture visual tokens are; None if nobody has it."""
        head, has_places = model.get_output_embeddings(), self.vlm is not None and self.vlm.has_places
        self.decoder = Decoder(len(decoder.layers), head_sizes(decoder.config).heads, decoder, head, has_places)
        self.model, self.method, self.observer = model, method, observer
        self.prompt_length: int | None = None
        """Tokens of the prompt while ``generate`` runs; None in a loop of the user's own."""
        self._step: Step | None = None
        """The pass that is under way; None between passes."""
        self._looks_ahead = False
        """Whether a prompt is run for what methods must know of it, before it is run as they have it."""
        self._inputs: dict[str, Any] = {}
        """What ``generate`` or the model was given with the prompt; ``input_ids``, [rows, tokens], where it was."""
        self._prompts: list[PromptFacts] = []
        """What is known of each row's prompt."""

    def watch(self, generate: Callable[..., Any]) -> Callable[..., Any]:
        """``generate``, with the length of its prompt noted, so that chunks of it are told from generated tokens."""

        @functools.wraps(generate)
        def watched(*arguments: Any, **keywords: Any) -> Any:
            outer = self.prompt_length, self._inputs
            self.prompt_length = prompt_length(*arguments, **keywords)
            ids = token_ids(*arguments, **keywords)
            if ids is not None:
                self._inputs = {**keywords, "input_ids": ids}
            try:
                return generate(*arguments, **keywords)
            finally:
                self.prompt_length, self._inputs = outer

        return watched

    def note_ids(self, model: object, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        """Of a prompt that is run outside of ``generate``, see the ids."""
        if self.prompt_length is None:
            ids = token_ids(*arguments, **keywords)
            if ids is not None and ids.shape[1] > 1:
                self._inputs = {**keywords, "input_ids": ids}

    @torch.compiler.disable
    def before(self, decoder: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        """Find the cache and hand the step, with the state that belongs to the cache, to the attention function."""
        if self._looks_ahead:
            return None
        self._step = None  # of the pass before, should that have failed
        tokens = keywords.get("inputs_embeds")
        if tokens is None:
            tokens = arguments[0] if arguments else keywords["input_ids"]
        cache = given_cache(keywords)
        if cache is None:
            use_cache = keywords.get("use_cache")
            if self.prompt_length is not None or not (decoder.config.use_cache if use_cache is None else use_cache):
                raise RequestError("the method works on the KV cache: call the model with use_cache=True")
            cache = DynamicCache(config=decoder.config)
        check_cache(cache)
        past = int(cache.get_seq_length())
        rows, new = tokens.shape[:2]
        is_prompt = self._is_prompt(past, new)
        is_ours = isinstance(cache, Followed) and cache.kvtune_session is self
        in_parts = bool(past and self.prompt_length)  # a prompt that comes in parts goes on
        if not is_ours or (is_prompt and not in_parts):
            length = past + new if self.prompt_length is None else self.prompt_length
            follow(cache, self, self._new_methods(rows, length, new, tokens.device, keywords))
        elif not is_prompt and cache.kvtune_cropped:
            raise RequestError("the cache was cropped after the last step; what the method remembers cannot follow")
        step = self._step = Step(cache.kvtune_state, is_prompt, positions=past + new)
        if is_prompt:
            step.to_come = 0 if self.prompt_length is None else self.prompt_length - past - new
            step.first = self._first_acting(step.methods, rows, past, new)
        if self.observer is not None and not is_prompt:
            step.observed = []
        others = {name: value for name, value in keywords.items() if name not in CACHE_NAMES}
        return arguments, others | {CACHE: cache, "kvtune_step": step}

    def shows(self, number: int) -> Callable[[Any, Any, Any], None]:
        """A hook that shows a layer's output to methods that look at it, where a pass ends with the prompt or later."""

        def show(layer: Any, arguments: Any, output: Any) -> None:
            if self._step is not None and self._step.to_come <= 0:
                show_layer(self._step.states, number, output)

        return show

    @torch.compiler.disable
    def after(self, decoder: Any, arguments: Any, keywords: dict[str, Any], output: Any) -> None:
        """After a decode step, let methods end it; after a prompt, begin."""
        if self._looks_ahead:
            return
        self._step = None
        step: Step = keywords["kvtune_step"]
        step.cache = given_cache(keywords)
        if step.observed:
            self._tell_observer(step)
        if not step.is_prompt:
            for state in step.states:
                if state.layers:
                    state.end_step(step)
        elif step.to_come == 0:
            prompts = self._prompts
            if step.last_outputs:
                outputs = torch.stack([one.to(step.last_outputs[0].device) for one in step.last_outputs], dim=1)
                prompts = [replace(prompt, outputs=own) for prompt, own in zip(prompts, outputs, strict=True)]
            step.methods.begin(range(len(prompts)), prompts, lambda kind: kind.acts_from == "generated")
            for kind, state in step.methods.states.items():
                if state.layers and kind.acts_from != "generated":
                    state.end_step(step)

    def _tell_observer(self, step: Step) -> None:
        assert self.observer is not None and step.observed is not None
        device = step.observed[0].device
        entropy = torch.stack([one.to(device) for one in step.observed])
        smoothing = torch.full_like(entropy, torch.nan)
        for state in step.states:
            layers = slice(state.layers.start, state.layers.stop)
            own = state.smoothing(entropy[layers])
            smoothing[layers] = torch.where(own.isnan(), smoothing[layers], own)
        self.observer(entropy, smoothing)

    def _methods(self, rows: int) -> list[ActingMethod | None]:
        methods: list[ActingMethod | None] = (
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

    def _new_methods(
        self, rows: int, length: int, new: int, device: torch.device, keywords: dict[str, Any]
    ) -> BatchMethods:
        """What acts on the rows of a prompt of ``length`` tokens, ``new`` of them in this pass."""
        methods = self._methods(rows)
        batch = BatchMethods(rows, self.decoder, device)
        batch.set(range(rows), methods)
        self._check_one_device(batch)
        wanted = {fact for method in methods if method for fact in method.facts}
        attention = any(state.changes_attention for state in batch.states.values())
        if wanted or attention or _any_on_prompt(methods):
            batch.see(visual_tokens_of_rows(self.model, self._inputs, rows, length).to(device))
            self._prompts = self._known(batch.classes[1], wanted, new, keywords)
            batch.begin(range(rows), self._prompts, lambda kind: kind.acts_from != "generated")
        else:
            batch.see(torch.zeros(rows, length, dtype=torch.bool, device=device))
            nothing = torch.zeros(self.decoder.n_layers, 0, 0, device=device)
            self._prompts = [PromptFacts(visual, None, nothing) for visual in batch.classes[1]]
        return batch

    def _check_one_device(self, batch: BatchMethods) -> None:
        """Refuse what works within layers where these are on several devices; smoothing works after them."""
        within = any(
            state.changes_attention or state.changes_output or state.looks_at_layers for state in batch.states.values()
        )
        if within and len({next(layer.parameters()).device for layer in self.decoder.module.layers}) > 1:
            raise RequestError(
                "the method works within layers, and the model's are on several devices: use "
                "kvtune.captioning.Captioner, or a model on one device"
            )

    def _known(self, visual: Tensor, wanted: set[AnyFact], new: int, keywords: dict[str, Any]) -> list[PromptFacts]:
        """What methods that act on the prompt may know of it, which must be known before it is run."""
        if any(isinstance(fact, Depth) for fact in wanted):
            raise RequestError(
                "generate() has no picture to take depth from: use kvtune.captioning.Captioner, or depth none"
            )
        if wanted and new < visual.shape[1]:
            raise RequestError(
                "the method looks at the whole prompt before it acts: call generate() without prefill_chunk_size"
            )
        noted: list[dict[AnyFact, Any]] = [{} for _ in visual]
        if wanted:
            self._looks_ahead = True
            try:
                noted = look_ahead(self.model, self.decoder, wanted, keywords, visual)
            finally:
                self._looks_ahead = False
        places = self.vlm.places(self._inputs) if self.vlm is not None else None
        beams = len(visual) // len(places) if places else 1
        nothing = visual.new_zeros(self.decoder.n_layers, 0, 0)
        return [
            PromptFacts(one, places[row // beams].to(one.device) if places else None, nothing, own)
            for row, (one, own) in enumerate(zip(visual, noted, strict=True))
        ]

    def _first_acting(self, batch: BatchMethods, rows: int, past: int, new: int) -> np.ndarray | None:
        """For each row the first of a pass's tokens on which its method acts; None if there is none."""
        methods = self._methods(rows)
        if not _any_on_prompt(methods):
            return None
        length = batch.classes.shape[2]
        after_image = length - batch.classes[2].sum(1).cpu().numpy()
        places = {"generated": length, "last_prompt_token": length - 1}
        first = [places.get(first_acting(method), after) for method, after in zip(methods, after_image, strict=True)]
        return np.clip(np.array(first) - past, 0, new)


def _any_on_prompt(methods: Sequence[ActingMethod | None]) -> bool:
    """Whether any acts on a token of the prompt."""
    return any(first_acting(method) != "generated" for method in methods)
