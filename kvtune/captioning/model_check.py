"""One model proved on a few images: does the engine write what ``generate()`` writes, and what does the model take."""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image

from kvtune.captioning.captioner import Captioner
from kvtune.captioning.prefill import decoder_of
from kvtune.captioning.request import CaptionRequest, cut
from kvtune.errors import RequestError
from kvtune.methods import Method, get_method, method_names
from kvtune.models import VisionLanguageModel

_TIE = {"float64": 1e-9, "float32": 1e-3}
"""Two logits nearer to each other than this may change places with the order of additions."""


@dataclasses.dataclass(frozen=True)
class Proof:
    """One caption, by the engine and by ``generate()``.

    Attributes
    ----------
    image
        Number of the image, from 0.
    method
        The method's name; None without one.
    dtype
        What both computed in.
    tokens
        Tokens that ``generate()`` wrote, the end of text left out.
    first_difference
        The first token in which they differ, counted from 0; None if they are equal.
    gap
        How far apart the two highest logits were there; None if equal.
    """

    image: int
    method: str | None
    dtype: str
    tokens: int
    first_difference: int | None
    gap: float | None


@dataclasses.dataclass(frozen=True)
class ModelCheck:
    """What a look at a loaded model gives.

    Attributes
    ----------
    layers, heads, kv_heads
        Of the text decoder.
    prompt_tokens
        Tokens of the whole prompt of the first image, visual ones included.
    visual_tokens, visual_ranges
        How many of them are visual, and where: ranges of positions, counted from 0, the end left out.
    places
        How many of the visual tokens have a place in the picture; None where the family does not know.
    caption, tokens, seconds
        The first image's caption by ``generate()``, its tokens, and what prompt and caption took.
    weights_gib, peak_gib
        Memory of the weights, and the highest that the GPU's was, or of several together; None without a GPU.
    proofs
        The engine beside ``generate()``.
    refused
        Methods that cannot serve this model -> why.
    proven
        Whether all captions are equal, or part only where two logits tie; None in half precision, where they may not.
    verdict
        That in words.
    """

    name: str
    family: str
    id: str
    revision: str | None
    device: str
    dtype: str
    layers: int
    heads: int
    kv_heads: int
    prompt: str
    prompt_tokens: int
    visual_tokens: int
    visual_ranges: list[tuple[int, int]]
    places: int | None
    caption: str
    tokens: int
    seconds: float
    weights_gib: float
    peak_gib: float | None
    proofs: list[Proof]
    refused: dict[str, str]
    proven: bool | None
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


@torch.inference_mode()
def check_model(
    vlm: VisionLanguageModel, images: Sequence[Image.Image], prompt: str | None = None, max_new_tokens: int = 128
) -> ModelCheck:
    """Caption ``images`` greedily by the engine and by ``generate()``, plain and under each method.

    A model in half precision is proved in its own type first, and then, if its memory allows, in float32, which it is
    left in.

    Raises
    ------
    RequestError
        If the model does not take an image, or is not supported.
    """
    (seen,) = vlm.family.decoder_inputs(vlm, images[:1], prompt)
    dtype = vlm.dtype_name
    start = time.perf_counter()
    written, _ = generated(vlm, images[0], None, prompt, max_new_tokens)
    seconds = time.perf_counter() - start
    on_gpu = vlm.device.type == "cuda"
    tensors = {id(tensor): tensor for tensor in (*vlm.hf_model.parameters(), *vlm.hf_model.buffers())}
    weights: Counter[torch.device] = Counter()
    for tensor in tensors.values():
        weights[tensor.device] += tensor.numel() * tensor.element_size()
    peak = sum(map(torch.cuda.max_memory_allocated, weights)) / 2**30 if on_gpu else None
    methods, refused = usable_methods(vlm, images[0], prompt)
    proofs = prove(vlm, images, methods, prompt, max_new_tokens)
    if vlm.dtype.itemsize == 2 and not vlm.is_quantized and _fits_in_float32(weights):
        vlm.hf_model.float()
        proofs += prove(vlm, images, methods, prompt, max_new_tokens)
    proven, verdict = judge(proofs)
    places = seen.visual.places
    return ModelCheck(
        name=vlm.name,
        family=vlm.family.name,
        id=vlm.model_id,
        revision=vlm.revision,
        device=vlm.device_name,
        dtype=dtype,
        layers=vlm.n_layers,
        heads=vlm.heads.heads,
        kv_heads=vlm.heads.kv_heads,
        prompt=prompt if prompt is not None else vlm.default_prompt,
        prompt_tokens=seen.length,
        visual_tokens=int(seen.visual.mask.sum()),
        visual_ranges=_ranges(seen.visual.mask.nonzero().flatten().tolist()),
        places=None if places is None else int(places.isfinite().all(1).sum()),
        caption=vlm.decode(written),
        tokens=len(written),
        seconds=round(seconds, 3),
        weights_gib=round(weights.total() / 2**30, 6),
        peak_gib=None if peak is None else round(peak, 6),
        proofs=proofs,
        refused=refused,
        proven=proven,
        verdict=verdict,
    )


def usable_methods(
    vlm: VisionLanguageModel, image: Image.Image, prompt: str | None = None
) -> tuple[list[Method], dict[str, str]]:
    """Each method at a setting from the middle of its ranges, and why others cannot serve the model.

    Some see that only when they write a token about ``image``.
    """
    methods, refused = [], {}
    captioner = Captioner(vlm, prompt, 1)
    for name in method_names():
        try:
            method = get_method(name).middle_for((vlm.name, vlm.family.name), vlm.n_layers)
            method.check_model(decoder_of(vlm))
            next(captioner.run([CaptionRequest(0, image, method)]))
            generated(vlm, image, method, prompt, 1)
            methods.append(method)
        except RequestError as error:
            refused[name] = str(error)
    return methods, refused


@torch.inference_mode()
def prove(
    vlm: VisionLanguageModel,
    images: Sequence[Image.Image],
    methods: Sequence[Method],
    prompt: str | None = None,
    max_new_tokens: int = 128,
) -> list[Proof]:
    """Each image without a method and with each: all at once by the engine, one after the other by ``generate()``."""
    wanted = [(number, method) for number in range(len(images)) for method in (None, *methods)]
    requests = [CaptionRequest(number, images[number], method, (number, method)) for number, method in wanted]
    by_engine = {one.tag: one.token_ids for one in Captioner(vlm, prompt, max_new_tokens).run(requests)}
    # A checkpoint that is stored in 8 bits has them not in its type's name.
    dtype = f"{vlm.dtype_name.removesuffix('-8bit')}-8bit" if vlm.waits_in_layers else vlm.dtype_name
    proofs = []
    for number, method in wanted:
        tokens, gaps = generated(vlm, images[number], method, prompt, max_new_tokens)
        engine = list(by_engine[number, method])
        longest = max(len(tokens), len(engine))
        differ = [at for at in range(longest) if tokens[at : at + 1] != engine[at : at + 1]]
        first = differ[0] if differ else None
        gap = gaps[first] if first is not None and first < len(gaps) else None
        name = method.name if method is not None else None
        proofs.append(Proof(number, name, dtype, len(tokens), first, gap))
    return proofs


def judge(proofs: Sequence[Proof]) -> tuple[bool | None, str]:
    """Whether the engine is proven by what was written in float32 or float64, and a line that says so."""
    exact = [proof for proof in proofs if _tie(proof) is not None]
    judged = exact or list(proofs)
    equal = sum(proof.first_difference is None for proof in judged)
    counts = f"{equal} of {len(judged)} captions in {judged[0].dtype} are token by token what generate() writes"
    if not exact:
        if judged[0].dtype.endswith("-8bit"):
            return None, f"{counts}; 8-bit layers round by what else is in the batch, so that decides nothing"
        return None, f"{counts}; half precision decides nothing, --dtype float32 does"
    apart = [proof for proof in exact if proof.first_difference is not None]
    tied = [proof for proof in apart if proof.gap is not None and proof.gap <= (_tie(proof) or 0)]
    if not apart:
        return True, f"proven: {counts}"
    if len(tied) == len(apart):
        return True, f"proven: {counts}, the others part where two logits tie"
    worst = next(proof for proof in apart if proof not in tied)
    under = f"under {worst.method}" if worst.method else "without a method"
    return False, (
        f"not proven: {counts}; image {worst.image} {under} parts at token {worst.first_difference}"
        + ("" if worst.gap is None else f", where the two highest logits are {worst.gap:.2g} apart")
    )


def generated(
    vlm: VisionLanguageModel, image: Image.Image, method: Method | None, prompt: str | None, max_new_tokens: int
) -> tuple[list[int], list[float]]:
    """What ``generate()`` writes up to the end of text, and how far apart the two highest logits were at each token."""
    inputs = vlm.prepare([image], prompt)
    settings = {"max_new_tokens": max_new_tokens, "return_dict_in_generate": True, "output_logits": True}
    if method is None:
        output = vlm.hf_model.generate(**inputs, **settings)
    else:
        with method(vlm.hf_model):
            output = vlm.hf_model.generate(**inputs, **settings)
    written = output.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    ended = cut(written, vlm.eos_token_ids, vlm.family.stop_sequences(vlm))
    highest = [logits[0].double().topk(2).values.tolist() for logits in output.logits]
    return list(ended[0]) if ended else written, [first - second for first, second in highest]


def _tie(proof: Proof) -> float | None:
    return _TIE.get(proof.dtype.removesuffix("-4bit"))  # weights are unpacked, and multiplied in that type


def _fits_in_float32(weights: Mapping[torch.device, int]) -> bool:
    on_gpus = {device: size for device, size in weights.items() if device.type == "cuda"}
    return all(torch.cuda.mem_get_info(device)[0] > 1.5 * size for device, size in on_gpus.items())


def _ranges(places: list[int]) -> list[tuple[int, int]]:
    """Ascending numbers as ranges [first, past the last)."""
    ranges: list[tuple[int, int]] = []
    for place in places:
        if ranges and ranges[-1][1] == place:
            ranges[-1] = (ranges[-1][0], place + 1)
        else:
            ranges.append((place, place + 1))
    return ranges
