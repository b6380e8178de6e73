"""All that is known of transformers' internals: the text decoder, its attention, the cache's name."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_outputs import BaseModelOutputWithPast

from kvtune.errors import RequestError

CACHE_NAMES = ("cache", "past_key_values")
"""The names that there have been; newer versions take the older one too."""

CACHE = "cache" if "cache" in BaseModelOutputWithPast.__dataclass_fields__ else "past_key_values"
"""The name in this version, of the argument and of the field of a model's output."""


_ATTENTION_IS_GIVEN = frozenset(
    {"dropout", "sliding_window", "position_ids", "is_causal", "use_cache", "cache_position"}
    | {"output_attentions", "output_hidden_states", "output_router_logits", "return_dict", "logits_to_keep"}
)
"""What an attention function may be given beside queries, keys, values, mask and scale that leaves the scores alone."""


def check_attention(module: Any, keywords: Mapping[str, Any]) -> None:
    """Refuse what changes the scores or the weights of a layer in a way that is not computed here.

    Raises
    ------
    RequestError
        With the names of the arguments, such as ``softcap`` and ``s_aux``.
    """
    unknown = [name for name, value in keywords.items() if value is not None and name not in _ATTENTION_IS_GIVEN]
    if unknown:
        raise RequestError(
            f"{type(module).__name__} is not supported: its attention takes {', '.join(sorted(unknown))}, of which "
            "kvtune knows nothing"
        )


def given_cache(keywords: Mapping[str, Any]) -> Any:
    """The cache among the keyword arguments of a forward pass or of ``generate()``; None if there is none."""
    return next((keywords[name] for name in CACHE_NAMES if keywords.get(name) is not None), None)


def image_token_id(config: Any) -> int | None:
    """The token that stands for each visual token in a prompt's ids; None if the model's configuration names none."""
    names = ("image_token_id", "image_token_index")
    return next((value for name in names if (value := getattr(config, name, None)) is not None), None)


def visual_tokens(config: Any, inputs: Mapping[str, Any]) -> Tensor:
    """Which tokens of prompts are visual, [rows, tokens] bool, by the ``input_ids`` and ``attention_mask`` of a model.

    Padding is not, whatever its id.
    """
    ids, mask = inputs["input_ids"], inputs.get("attention_mask")
    visual: Tensor = ids == image_token_id(config)
    return visual & mask.bool() if mask is not None and mask.shape == visual.shape else visual


def rotary_positions(positions: Any) -> Any:
    """Positions as a rotary embedding takes them, [rows, tokens] or [axes, rows, tokens].

    Decoders with three axes are handed a fourth before them, which counts the text and serves masks alone.
    """
    return positions[1:] if positions.ndim == 3 and len(positions) == 4 else positions


class HeadSizes(NamedTuple):
    """Sizes of a decoder's attention: heads of queries, heads of keys and values, numbers of one head."""

    heads: int
    kv_heads: int
    head_dim: int


def head_sizes(config: Any) -> HeadSizes:
    """What the configuration of a text decoder says of its attention; without a number of their own, keys have as many
    heads as queries.

    Raises
    ------
    RequestError
        If it does not say, or layers differ.
    """
    try:
        heads = config.num_attention_heads
        kv_heads = getattr(config, "num_key_value_heads", None) or heads
        return HeadSizes(heads, kv_heads, getattr(config, "head_dim", None) or config.hidden_size // heads)
    except Exception as error:  # transformers has a kind of its own for what differs between layers
        raise RequestError(
            f"a {config.model_type} decoder is not supported: its configuration gives no one size for the attention of "
            "all layers"
        ) from error


class MovingRotary:
    """Rotary embeddings of a decoder whose frequencies follow the longest position of a batch.

    ``generate()`` runs one batch from its beginning to its end; where captions come and go, those that have ended, and
    idle rows, must move nothing, and to look at a GPU's positions is to wait for it.

    Attributes
    ----------
    limit
        Positions up to which frequencies are those that a prompt begins with; None if they never are others.
    """

    def __init__(self, decoder: Any) -> None:
        self._moving = [module for module in decoder.modules() if _moving_kinds(module)]
        self.limit = min(map(_rotary_limit, self._moving), default=None)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let frequencies stay as they are for a while."""
        before = [module.rope_type for module in self._moving]
        try:
            for module, kind in zip(self._moving, before, strict=True):
                module.rope_type = dict.fromkeys(kind, "default") if isinstance(kind, dict) else "default"
            yield
        finally:
            for module, kind in zip(self._moving, before, strict=True):
                module.rope_type = kind


def _moving_kinds(module: Any) -> dict[str | None, str]:
    """Kind of layer -> kind of rotary embedding, of those whose frequencies move; None stands for all layers."""
    given = getattr(module, "rope_type", None)
    kinds = given if isinstance(given, dict) else {None: given}
    return {layers: kind for layers, kind in kinds.items() if kind and ("dynamic" in kind or kind == "longrope")}


def _rotary_limit(module: Any) -> int:
    settings, limits = module.config.rope_parameters, []
    for layers, kind in _moving_kinds(module).items():
        of_layers = settings if layers is None else settings[layers]
        is_long = kind == "longrope"
        limits.append(of_layers["original_max_position_embeddings"] if is_long else module.original_max_seq_len)
    return int(min(limits))


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


def beside_decoder(model: Any) -> tuple[str, ...]:
    """Names of the modules that hold all of ``model`` but its text decoder: vision tower, projector, head, ..."""
    decoder, beside = text_decoder(model), []
    names = {id(module): name for name, module in model.named_modules()}
    path = names[id(decoder)]
    for name, _ in model.named_modules():
        parent = name.rpartition(".")[0]
        if name and f"{path}.".startswith(f"{parent}." if parent else "") and not f"{path}.".startswith(f"{name}."):
            beside.append(name)
    return tuple(name for name in beside if not name.startswith(f"{path}."))


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
def without_cudnn_attention() -> Iterator[None]:
    """Let PyTorch's attention do without cuDNN's kernels for a while, which it takes first on an H100 or H200.

    cuDNN makes a plan for every shape that it has not seen, in tens to hundreds of milliseconds of the host: for
    prompts of every length and number, for images of every size, and for every token of a text that grows. The other
    kernels take any shape at once.
    """
    before = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(False)
    try:
        yield
    finally:
        torch.backends.cuda.enable_cudnn_sdp(before)


def sdpa(*arguments: Any, **keywords: Any) -> Any:
    """What transformers computes under the name "sdpa", :func:`without_cudnn_attention`."""
    with without_cudnn_attention():
        return sdpa_attention_forward(*arguments, **keywords)


@contextmanager
def replaced(module: Any, name: str, value: Any) -> Iterator[None]:
    """Let a module have another attribute of its own for a while, which may hide its class's."""
    before = vars(module).get(name)
    setattr(module, name, value)
    try:
        yield
    finally:
        if before is None:
            delattr(module, name)
        else:
            setattr(module, name, before)


class _Recorded(BaseModelOutputWithPast):
    """What a replaced decoder gives back; of what some models look for beside, it has nothing."""

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)
        return None


@contextmanager
def recorded_decoder(model: Any) -> Iterator[list[dict[str, Any]]]:
    """Let the text decoder of ``model`` note its arguments and compute nothing for a while.

    A decoder's own inputs (embeddings with the images in them, positions, masks, ...) are computed inside of a model's
    forward pass and nowhere else. Whatever runs the model in this block, ``generate()`` too, goes through all of that
    and gets embeddings in place of hidden states.

    Yields
    ------
    list of dict
        The arguments of each call, by name, those that are None left out.
    """
    decoder = text_decoder(model)
    signature = inspect.signature(type(decoder).forward)
    calls: list[dict[str, Any]] = []

    def record(*arguments: Any, **keywords: Any) -> _Recorded:
        given = signature.bind(decoder, *arguments, **keywords).arguments
        given.pop("self", None)
        given.update(given.pop("kwargs", {}))
        calls.append({name: value for name, value in given.items() if value is not None})
        embeddings = given.get("inputs_embeds")
        if embeddings is None:
            embeddings = decoder.get_input_embeddings()(given["input_ids"])
        cache = given_cache(given)
        if cache is not None:  # grows as it would, for positions are counted by it
            nothing = embeddings.new_zeros(len(embeddings), 1, embeddings.shape[1], 1)
            for layer in range(len(decoder.layers)):
                cache.update(nothing, nothing, layer)
        return _Recorded(last_hidden_state=embeddings, **{CACHE: cache})

    with replaced(decoder, "forward", record):
        yield calls


def conversion_failure(error: BaseException) -> RuntimeError | None:
    """What failed while weights were converted as they were loaded; None if ``error`` says nothing of that.

    transformers logs the traceback, among them those of a lack of memory, and raises an error that points to the log.
    """
    for frame, _ in traceback.walk_tb(error.__traceback__):
        failed = getattr(frame.f_locals.get("loading_info"), "conversion_errors", None)
        if failed:
            lines = str(next(iter(failed.values()))).rpartition("Traceback (most recent call last):\n")[2].splitlines()
            return RuntimeError(next((line for line in lines if line.strip() and not line.startswith(" ")), lines[-1]))
    return None
