"""Speed, memory and noise of the engine, measured in one run beside what it replaces."""

from __future__ import annotations

import dataclasses
import logging
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from PIL import Image

from kvtune.captioning.captioner import Captioner
from kvtune.captioning.memory import Lanes, bytes_per_position, plan_grid
from kvtune.captioning.request import CaptionRequest, cut
from kvtune.methods import Method
from kvtune.models import VisionLanguageModel

log = logging.getLogger(__name__)

Lengths = Callable[[int, int], int]
"""Forced caption length of (image number, trial number), in tokens."""


@dataclasses.dataclass(frozen=True)
class Arm:
    """One way of making captions, measured.

    Attributes
    ----------
    captions, tokens
        Made in one repeat; tokens without padding and without what comes after an end of text.
    seconds
        Median over repeats.
    captions_per_second, tokens_per_second, ms_per_step
        ``ms_per_step`` is per forward pass of the decoder; None where passes were not counted.
    peak_bytes
        Most device memory held; None on a CPU.
    roofline
        Share of the speed that the device's measured matrix product and copy allow, 0 to 1.
    """

    name: str
    what: str
    captions: int
    tokens: int
    seconds: float
    captions_per_second: float
    tokens_per_second: float
    ms_per_step: float | None
    peak_bytes: int | None
    roofline: float


@dataclasses.dataclass(frozen=True)
class Device:
    """The device's measured limits: floating-point operations and copied bytes (read and written) a second."""

    name: str
    threads: int
    flops: float
    bandwidth: float


@dataclasses.dataclass(frozen=True)
class Noise:
    """What batch shape alone changes: the same captions made one at a time and on the full grid."""

    captions: int
    changed: int


def measure_device(device: torch.device, dtype: torch.dtype) -> Device:
    """Time a large matrix product and a large copy, best of several."""
    size = 8192 if device.type == "cuda" else 1024
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    block = torch.randn(2**28 if device.type == "cuda" else 2**24, device=device)
    target = torch.empty_like(block)
    product = min(_seconds(lambda: torch.matmul(left, right), device) for _ in range(8))
    copy = min(_seconds(lambda: target.copy_(block), device) for _ in range(8))
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return Device(name, torch.get_num_threads(), 2 * size**3 / product, 2 * block.numel() * 4 / copy)


def bench_engine(
    vlm: VisionLanguageModel,
    images: Sequence[Image.Image],
    methods: Sequence[Method],
    *,
    prompt: str | None = None,
    max_new_tokens: int = 512,
    lengths: Lengths | None = None,
    lanes: Lanes = "auto",
    repeats: int = 3,
    single: int = 4,
    batch_sizes: Iterable[int] = (16, 32, 64, 128),
    trials: Sequence[int] = (8, 16),
) -> dict[str, Any]:
    """Measure every arm on the same images and settings; repeats go through all arms in turn, so that drift cancels.

    Parameters
    ----------
    methods
        As many as the most trials; the first is the one of the single-trial arms.
    lengths
        Forces caption lengths (for weights that never end a text); None lets captions end as they do.
    single
        Captions of the arms that make one at a time.
    batch_sizes
        Tried once each for ``generate()``; the fastest is measured.

    Returns
    -------
    dict
        ``device``, ``arms``, ``ratios``, ``noise``, ``plan``: JSON-ready.
    """
    bench = _Bench(vlm, images, prompt, max_new_tokens, lengths, lanes)
    with bench.ends_forced():
        device = measure_device(vlm.device, vlm.dtype)
        best = max((size for size in batch_sizes if size <= len(images)), key=bench.batch_speed, default=len(images))
        one = list(range(min(single, len(images))))
        arms: dict[str, tuple[str, Callable[[], tuple[int, int]]]] = {
            "a0": ("generate(), one at a time, eager, no method", lambda: bench.generate(one, 1, "eager", None)),
            "a": ("generate(), one at a time, KVSmooth attached", lambda: bench.generate(one, 1, None, methods[0])),
            "b": (f"generate(), batch {best}, SDPA, no method", lambda: bench.generate(bench.all, best, "sdpa", None)),
            "c": ("engine, no method", lambda: bench.engine([None])),
            "d": ("engine, KVSmooth, 1 trial", lambda: bench.engine(methods[:1])),
        }
        for count in trials:
            arms[f"e{count}"] = (
                f"engine, KVSmooth, {count} trials",
                lambda count=count: bench.engine(methods[:count]),  # type: ignore[misc]
            )
        results = bench.measure(arms, repeats, device)
        noise = bench.noise(methods[0])
        plan = plan_grid(vlm, bench.prompt_tokens, max_new_tokens, trials[-1] * len(images), len(images), lanes)
        per_step = bench.step_overhead(methods[0])
    by_name = {arm.name: arm for arm in results}
    ratios = {
        "attached_over_plain_per_token": by_name["a0"].tokens_per_second / by_name["a"].tokens_per_second,
        "smoothing_over_none_per_step": per_step,
    }
    for count in trials:
        most = by_name[f"e{count}"].captions_per_second
        ratios[f"e{count}_over_a0"] = most / by_name["a0"].captions_per_second
        ratios[f"e{count}_over_b"] = most / by_name["b"].captions_per_second
    return {
        "model": vlm.name,
        "dtype": vlm.dtype_name,
        "images": len(images),
        "device": dataclasses.asdict(device),
        "plan": dataclasses.asdict(plan),
        "arms": [dataclasses.asdict(arm) for arm in results],
        "ratios": ratios,
        "noise": dataclasses.asdict(noise),
    }


class _Bench:
    """The same images and settings for every arm."""

    def __init__(
        self,
        vlm: VisionLanguageModel,
        images: Sequence[Image.Image],
        prompt: str | None,
        max_new_tokens: int,
        lengths: Lengths | None,
        lanes: Lanes,
    ) -> None:
        self.vlm, self.images, self.prompt = vlm, images, prompt
        self.max_new_tokens, self.lengths, self.lanes = max_new_tokens, lengths, lanes
        self.all = list(range(len(images)))
        self.prompt_tokens = int(vlm.prepare(images[:1], prompt)["attention_mask"].shape[1])

    @contextmanager
    def ends_forced(self) -> Iterator[None]:
        """No end-of-text token while lengths are forced."""
        generation = self.vlm.hf_model.generation_config
        before = generation.eos_token_id
        if self.lengths is not None:
            generation.eos_token_id = None
        try:
            yield
        finally:
            generation.eos_token_id = before

    def limit(self, image: int, trial: int) -> int:
        return self.lengths(image, trial) if self.lengths else self.max_new_tokens

    def generate(
        self, chosen: Sequence[int], batch: int, attention: str | None, method: Method | None
    ) -> tuple[int, int]:
        """Captions of ``chosen`` images by ``generate()``; how many, and their useful tokens."""
        tokens = 0
        with _attention(self.vlm, attention), method(self.vlm.hf_model) if method else nullcontext():
            for first in range(0, len(chosen), batch):
                rows = chosen[first : first + batch]
                inputs = self.vlm.prepare([self.images[image] for image in rows], self.prompt)
                limits = [self.limit(image, 0) for image in rows]
                with torch.inference_mode():
                    output = self.vlm.hf_model.generate(**inputs, max_new_tokens=max(limits))
                written = output[:, inputs["input_ids"].shape[1] :].tolist()
                tokens += sum(map(self._useful, written, limits))
        return len(chosen), tokens

    def engine(
        self, methods: Sequence[Method | None], lanes: Lanes | None = None, chosen: Sequence[int] | None = None
    ) -> tuple[int, int]:
        """Captions of all images under each of ``methods`` by the engine; how many, and their tokens."""
        captions = self.captions(methods, lanes or self.lanes, self.all if chosen is None else chosen)
        # What ended a caption was decoded too, and counts as it does for generate().
        return len(captions), sum(len(c.token_ids) + (c.finish_reason == "eos") for c in captions.values())

    def captions(self, methods: Sequence[Method | None], lanes: Lanes, chosen: Sequence[int]) -> dict[Any, Any]:
        """Captions by (image, trial)."""
        requests = (
            CaptionRequest(image, self.images[image], method, trial, self.limit(image, trial))
            for image in chosen
            for trial, method in enumerate(methods)
        )
        captioner = Captioner(self.vlm, self.prompt, self.max_new_tokens, lanes)
        return {(caption.image_id, caption.tag): caption for caption in captioner.run(requests)}

    def batch_speed(self, size: int) -> float:
        """Captions a second of ``generate()`` at a batch size."""
        seconds = _seconds(lambda: self.generate(self.all[:size], size, "sdpa", None), self.vlm.device)
        log.info("generate() at batch %d: %.1f captions/s", size, size / seconds)
        return size / seconds

    def measure(
        self, arms: dict[str, tuple[str, Callable[[], tuple[int, int]]]], repeats: int, device: Device
    ) -> list[Arm]:
        """Every arm ``repeats`` times in turn, after one round that is not counted."""
        seconds: dict[str, list[float]] = {name: [] for name in arms}
        made: dict[str, tuple[int, int, int, int | None]] = {}
        for repeat in range(repeats + 1):
            for name, (what, run) in arms.items():
                log.info("%s %s: %s", f"repeat {repeat}" if repeat else "warm-up", name, what)
                with _count_steps(self.vlm) as steps:
                    if self.vlm.device.type == "cuda":
                        torch.cuda.reset_peak_memory_stats(self.vlm.device)
                    result: list[tuple[int, int]] = []
                    elapsed = _seconds(lambda run=run, result=result: result.append(run()), self.vlm.device)  # type: ignore[misc]
                peak = torch.cuda.max_memory_allocated(self.vlm.device) if self.vlm.device.type == "cuda" else None
                made[name] = (*result[0], steps[0], peak)
                if repeat:
                    seconds[name].append(elapsed)
        results = []
        for name, (what, _) in arms.items():
            captions, tokens, steps_taken, peak = made[name]
            median = statistics.median(seconds[name])
            results.append(
                Arm(
                    name=name,
                    what=what,
                    captions=captions,
                    tokens=tokens,
                    seconds=median,
                    captions_per_second=captions / median,
                    tokens_per_second=tokens / median,
                    ms_per_step=1e3 * median / steps_taken if steps_taken else None,
                    peak_bytes=peak,
                    roofline=self._least_seconds(tokens, captions, steps_taken, device) / median,
                )
            )
        return results

    def step_overhead(self, method: Method, pairs: int = 5) -> float:
        """Time with ``method`` over time without, per step, at forced equal lengths: median of interleaved pairs."""
        before, self.lengths = self.lengths, lambda image, trial: min(48, self.max_new_tokens)
        try:
            with self.ends_forced():
                ratios = []
                for _ in range(pairs):
                    without = _seconds(lambda: self.engine([None]), self.vlm.device)
                    ratios.append(_seconds(lambda: self.engine([method]), self.vlm.device) / without)
        finally:
            self.lengths = before
        return statistics.median(ratios)

    def noise(self, method: Method) -> Noise:
        """Captions that differ between one lane and the full grid."""
        chosen = self.all[: min(len(self.all), 32)]
        alone = self.captions([method], 1, chosen)
        together = self.captions([method], self.lanes, chosen)
        changed = sum(alone[key].token_ids != together[key].token_ids for key in alone)
        return Noise(len(alone), changed)

    def _useful(self, written: list[int], limit: int) -> int:
        ended = cut(written[:limit], self.vlm.eos_token_ids, [])
        return limit if ended is None else len(ended[0]) + 1

    def _least_seconds(self, tokens: int, captions: int, steps: int, device: Device) -> float:
        """What the useful tokens would take at the device's limits: the longer of arithmetic and memory traffic.

        Arithmetic is two operations a weight and token; traffic is the weights once a step, and the keys and values of
        half a caption, on average, a token. Prefill is left out, so the share is on the low side.
        """
        weights = sum(p.numel() for p in self.vlm.decoder.layers.parameters())
        weights += self.vlm.hf_model.get_output_embeddings().weight.numel()
        arithmetic = 2 * weights * tokens / device.flops
        cached = tokens * (tokens / max(captions, 1) / 2) * bytes_per_position(self.vlm)
        traffic = (steps * weights * self.vlm.dtype.itemsize + cached) / (device.bandwidth / 2)
        return max(arithmetic, traffic)


@contextmanager
def _attention(vlm: VisionLanguageModel, name: str | None) -> Iterator[None]:
    """Let the whole model use the attention implementation ``name`` for a while; None leaves it."""
    before = vlm.hf_model.config._attn_implementation
    if name is not None:
        vlm.hf_model.set_attn_implementation(name)
    try:
        yield
    finally:
        if name is not None:
            vlm.hf_model.set_attn_implementation(before)


@contextmanager
def _count_steps(vlm: VisionLanguageModel) -> Iterator[list[int]]:
    """Forward passes of the decoder in the block, in a list of one number."""
    count = [0]

    def seen(*_: Any) -> None:
        count[0] += 1

    hook = vlm.decoder.register_forward_pre_hook(seen)
    try:
        yield count
    finally:
        hook.remove()


def _seconds(run: Callable[[], Any], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
