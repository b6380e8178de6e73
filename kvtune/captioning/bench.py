"""Speed, memory and noise of the engine, measured in one run beside what it replaces."""

from __future__ import annotations

import dataclasses
import logging
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar, cast

import torch
from PIL import Image

from kvtune.captioning.captioner import Captioner
from kvtune.captioning.memory import GridPlan, Lanes, bytes_per_position
from kvtune.captioning.peak import measured_peak
from kvtune.captioning.request import Caption, CaptionRequest, cut
from kvtune.captioning.sweep import extrapolated_sweep
from kvtune.methods import Method
from kvtune.models import VisionLanguageModel

log = logging.getLogger(__name__)

T = TypeVar("T")

_SHORT = 32
"""Tokens of captions that are not measured for themselves: to find the best batch size; to warm up, a quarter."""

_NOISE_IMAGES = 64

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
    repeats
        Runs that the median is of.
    peak_bytes
        Most device memory held; None on a CPU.
    of_matmul, of_copy
        Share of the speed that the device's measured matrix product, and its measured copy, would allow.
    """

    name: str
    what: str
    captions: int
    tokens: int
    repeats: int
    seconds: float
    captions_per_second: float
    tokens_per_second: float
    ms_per_step: float
    peak_bytes: int | None
    of_matmul: float
    of_copy: float


@dataclasses.dataclass(frozen=True)
class Device:
    """The device's measured limits: floating-point operations and copied bytes (read and written) a second."""

    name: str
    threads: int
    flops: float
    bandwidth: float


@dataclasses.dataclass(frozen=True)
class Made:
    """What one run of an arm made.

    Attributes
    ----------
    tokens
        Of all captions, the useful ones.
    steps
        Forward passes of the decoder; of the engine, decode steps alone.
    plan
        The engine's grid.
    finished
        Seconds at which the engine finished each caption.
    """

    captions: int
    tokens: int
    steps: int
    plan: GridPlan | None = None
    finished: list[float] = dataclasses.field(default_factory=list)


def measure_device(device: torch.device, dtype: torch.dtype) -> Device:
    """Time a large matrix product and a large copy, best of several."""
    size = 8192 if device.type == "cuda" else 512
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
    cuda_graphs: bool = True,
    repeats: int = 2,
    single: int = 4,
    batch_sizes: Iterable[int] = (16, 32, 64, 128),
    trials: Sequence[int] = (8, 16),
    chair_s: Callable[[dict[int, str]], float] | None = None,
    keep: Callable[[dict[str, Any]], None] = lambda result: None,
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
        Tried once each for ``generate()``, at most as large as there are images; the fastest is measured.
    chair_s
        CHAIR_S of captions by image number, where it is known what the images show.
    keep
        Called with the result so far whenever something was measured.

    Returns
    -------
    dict
        JSON-ready. ``arms`` and ``ratios`` hold what is measured; ``noise``, ``memory`` and ``sweep`` are None until
        they are, and ``complete`` is true at the end.
    """
    bench = _Bench(vlm, images, prompt, max_new_tokens, lengths, lanes, cuda_graphs)
    result: dict[str, Any] = {
        "model": vlm.name,
        "dtype": vlm.dtype_name,
        "images": len(images),
        "lanes": lanes,
        "cuda_graphs": cuda_graphs and vlm.device.type == "cuda",
        "max_new_tokens": max_new_tokens,
        "forced_lengths": lengths is not None,
        "settings": [method.parameters() for method in methods],
        "device": dataclasses.asdict(measure_device(vlm.device, vlm.dtype)),
        "arms": [],
        "ratios": {},
        "sweep": None,
        "memory": None,
        "noise": None,
        "complete": False,
    }
    device = Device(**result["device"])
    with bench.ends_forced():
        best = bench.best_batch([size for size in batch_sizes if size <= len(images)] or [len(images)])
        one = list(range(min(single, len(images))))
        arms: dict[str, tuple[str, Callable[[], Made]]] = {
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
        most = f"e{trials[-1]}"
        for measured in bench.measure(arms, repeats, device):
            by_name = {arm.name: arm for arm in measured}
            result["arms"] = [dataclasses.asdict(arm) for arm in measured]
            result["ratios"] = _ratios(by_name, trials)
            made = bench.latest.get(most)
            if made is not None and made.plan is not None:
                rows, seconds = made.plan.groups * made.plan.lanes, 1 / by_name["c"].captions_per_second
                result["sweep"] = extrapolated_sweep(made.finished, rows, trials[-1], seconds)
            keep(result)
        result["ratios"]["smoothing_over_none_per_step"] = bench.step_overhead(methods[0])
        keep(result)
        result["memory"] = bench.memory(methods[: trials[-1]], bench.latest[most], by_name[most].peak_bytes)
        keep(result)
        result["noise"] = bench.noise(methods[: trials[-1]], chair_s)
        result["complete"] = True
        keep(result)
    return result


def _ratios(arms: Mapping[str, Arm], trials: Sequence[int]) -> dict[str, float]:
    """How the arms compare, as far as they are measured; above 1 is slower for ``attached``, faster for the others."""
    ratios = {}
    if {"a0", "a"} <= arms.keys():
        ratios["attached_over_plain_per_token"] = arms["a0"].tokens_per_second / arms["a"].tokens_per_second
    for count in trials:
        for other in ("a0", "b"):
            if {f"e{count}", other} <= arms.keys():
                mine, theirs = arms[f"e{count}"], arms[other]
                ratios[f"e{count}_over_{other}"] = mine.captions_per_second / theirs.captions_per_second
                ratios[f"e{count}_over_{other}_tokens"] = mine.tokens_per_second / theirs.tokens_per_second
    return ratios


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
        cuda_graphs: bool,
    ) -> None:
        self.vlm, self.images, self.prompt = vlm, images, prompt
        self.max_new_tokens, self.lengths, self.lanes = max_new_tokens, lengths, lanes
        self.cuda_graphs = cuda_graphs
        self.all = list(range(len(images)))
        self.prompt_tokens = int(vlm.prepare(images[:1], prompt)["attention_mask"].shape[1])
        self.most_tokens: int | None = None
        """Where set, no caption gets longer: for warming up, and where not speed is measured."""
        self.latest: dict[str, Made] = {}
        """Each arm's latest run."""

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
        limit = self.lengths(image, trial) if self.lengths else self.max_new_tokens
        return limit if self.most_tokens is None else min(limit, self.most_tokens)

    @contextmanager
    def short(self, tokens: int) -> Iterator[None]:
        """Captions of at most ``tokens`` tokens."""
        self.most_tokens = tokens
        try:
            yield
        finally:
            self.most_tokens = None

    def generate(self, chosen: Sequence[int], batch: int, attention: str | None, method: Method | None) -> Made:
        """Captions of ``chosen`` images by ``generate()``."""
        tokens = 0
        attached = method(self.vlm.hf_model) if method else nullcontext()
        with _count_steps(self.vlm) as steps, _attention(self.vlm, attention), attached:
            for first in range(0, len(chosen), batch):
                rows = chosen[first : first + batch]
                inputs = self.vlm.prepare([self.images[image] for image in rows], self.prompt)
                limits = [self.limit(image, 0) for image in rows]
                with torch.inference_mode():
                    output = self.vlm.hf_model.generate(**inputs, max_new_tokens=max(limits))
                written = output[:, inputs["input_ids"].shape[1] :].tolist()
                tokens += sum(map(self._useful, written, limits))
        return Made(len(chosen), tokens, steps[0])

    def captioner(self, lanes: Lanes) -> Captioner:
        return Captioner(self.vlm, self.prompt, self.max_new_tokens, lanes, self.cuda_graphs)

    def engine(self, methods: Sequence[Method | None]) -> Made:
        """Captions of all images under each of ``methods`` by the engine."""
        captioner = self.captioner(self.lanes)
        finished: list[float] = []
        captions = self.captions(captioner, methods, self.all, finished)
        # What ended a caption was decoded too, and counts as it does for generate().
        tokens = sum(len(caption.token_ids) + (caption.finish_reason == "eos") for caption in captions.values())
        return Made(len(captions), tokens, captioner.steps, captioner.plan, finished)

    def captions(
        self, captioner: Captioner, methods: Sequence[Method | None], chosen: Sequence[int], finished: list[float]
    ) -> dict[tuple[int, int], Caption]:
        """Captions by (image, trial); the seconds at which they were finished are added to ``finished``."""
        requests = (
            CaptionRequest(image, self.images[image], method, trial, self.limit(image, trial))
            for image in chosen
            for trial, method in enumerate(methods)
        )
        captions: dict[tuple[int, int], Caption] = {}
        start = time.perf_counter()
        for caption in captioner.run(requests):
            captions[caption.image_id, cast(int, caption.tag)] = caption
            finished.append(time.perf_counter() - start)
        return captions

    def best_batch(self, sizes: Sequence[int]) -> int:
        """The batch size at which ``generate()`` makes the most captions a second, on short ones."""

        def speed(size: int) -> float:
            seconds = _seconds(lambda: self.generate(self.all[:size], size, "sdpa", None), self.vlm.device)
            log.info("trying generate() at batch %d: %.1f short captions/s", size, size / seconds)
            return size / seconds

        with self.short(_SHORT):
            return max(sizes, key=speed)

    def measure(
        self, arms: Mapping[str, tuple[str, Callable[[], Made]]], repeats: int, device: Device
    ) -> Iterator[list[Arm]]:
        """Every arm ``repeats`` times in turn, after one short run of each; the arms so far after each measurement."""
        with self.short(_SHORT // 4):
            for name, (_, run) in arms.items():
                log.info("warming up %s", name)
                run()
        seconds: dict[str, list[float]] = {name: [] for name in arms}
        results: dict[str, Arm] = {}
        for repeat in range(repeats):
            for name, (what, run) in arms.items():
                if self.vlm.device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats(self.vlm.device)
                elapsed, made = _timed(run, self.vlm.device)
                peak = torch.cuda.max_memory_allocated(self.vlm.device) if self.vlm.device.type == "cuda" else None
                seconds[name].append(elapsed)
                self.latest[name] = made
                results[name] = self._arm(name, what, made, seconds[name], peak, device)
                log.info("%s of %d, %s: %s: %.1f captions/s", repeat + 1, repeats, name, what, made.captions / elapsed)
                yield list(results.values())

    def _arm(
        self,
        name: str,
        what: str,
        made: Made,
        seconds: Sequence[float],
        peak: int | None,
        device: Device,
    ) -> Arm:
        median = statistics.median(seconds)
        arithmetic, traffic = self._least_seconds(made, device)
        return Arm(
            name=name,
            what=what,
            captions=made.captions,
            tokens=made.tokens,
            repeats=len(seconds),
            seconds=median,
            captions_per_second=made.captions / median,
            tokens_per_second=made.tokens / median,
            ms_per_step=1e3 * median / max(1, made.steps),
            peak_bytes=peak,
            of_matmul=arithmetic / median,
            of_copy=traffic / median,
        )

    def step_overhead(self, method: Method, pairs: int = 5) -> float:
        """Time with ``method`` over time without, per step, at forced equal lengths: median of interleaved pairs."""
        before, self.lengths = self.lengths, lambda image, trial: min(48, self.max_new_tokens)
        log.info("engine with KVSmooth over none, captions of 48 tokens")
        try:
            with self.ends_forced():
                ratios = []
                for _ in range(pairs):
                    without = _seconds(lambda: self.engine([None]), self.vlm.device)
                    ratios.append(_seconds(lambda: self.engine([method]), self.vlm.device) / without)
        finally:
            self.lengths = before
        return statistics.median(ratios)

    def memory(self, methods: Sequence[Method], made: Made, peak: int | None) -> dict[str, Any]:
        """What the plan of the largest arm predicts beside what it held.

        On a CPU, where the arm was not looked at, the same grid is measured on captions of a few tokens, with every
        allocation noted; the room for longer ones is taken all the same.
        """
        plan = made.plan
        if peak is None:
            log.info("memory: captions of %d tokens, every allocation noted", _SHORT // 4)
            again: list[Made] = []
            with self.short(_SHORT // 4):
                peak = measured_peak(self.vlm, lambda: again.append(self.engine(methods)))
            plan = again[0].plan
        assert plan is not None
        return {"plan": plan.to_dict(), "measured_peak": peak, "predicted_over_measured": plan.peak / peak}

    def noise(self, methods: Sequence[Method], chair_s: Callable[[dict[int, str]], float] | None) -> dict[str, Any]:
        """What batch shape alone changes: captions of the first method, in one lane and amid those of all methods."""
        chosen = self.all[:_NOISE_IMAGES]
        log.info("noise floor: %d captions in one lane and on the full grid", len(chosen))
        alone = self.captions(self.captioner(1), methods[:1], chosen, [])
        together = self.captions(self.captioner(self.lanes), methods, chosen, [])
        changed = sum(alone[image, 0].token_ids != together[image, 0].token_ids for image in chosen)
        scores: list[float | None] = [None, None]
        if chair_s is not None:
            scores = [chair_s({n: captions[n, 0].text for n in chosen}) for captions in (alone, together)]
        return {
            "captions": len(chosen),
            "changed": changed,
            "chair_s_one_lane": scores[0],
            "chair_s_full_grid": scores[1],
            "chair_s_change": None if scores[0] is None or scores[1] is None else scores[1] - scores[0],
        }

    def _useful(self, written: list[int], limit: int) -> int:
        ended = cut(written[:limit], self.vlm.eos_token_ids, [])
        return limit if ended is None else len(ended[0]) + 1

    def _least_seconds(self, made: Made, device: Device) -> tuple[float, float]:
        """What the useful tokens would take if nothing but arithmetic, or nothing but memory traffic, took time.

        Arithmetic is two operations a weight and token. Traffic is the weights once a step, and for a token the keys
        and values of half a caption, on average, and of the prompt, which lanes of one image share. Prefill is left
        out, so the shares are on the low side.
        """
        weights = sum(p.numel() for p in self.vlm.decoder.layers.parameters())
        weights += self.vlm.hf_model.get_output_embeddings().weight.numel()
        lanes = 1 if made.plan is None else made.plan.lanes
        positions = made.tokens * (self.prompt_tokens / lanes + made.tokens / made.captions / 2)
        traffic = made.steps * weights * self.vlm.dtype.itemsize + positions * bytes_per_position(self.vlm)
        return 2 * weights * made.tokens / device.flops, traffic / device.bandwidth


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


def _timed(run: Callable[[], T], device: torch.device) -> tuple[float, T]:
    """Seconds that ``run`` takes on ``device``, and what it returns."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    result = run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start, result


def _seconds(run: Callable[[], Any], device: torch.device) -> float:
    return _timed(run, device)[0]
