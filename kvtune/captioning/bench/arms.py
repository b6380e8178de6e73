"""The arms of the bench: how fast each makes captions, and how they compare."""

from __future__ import annotations

import dataclasses
import logging
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from kvtune.captioning.bench.device import Device, seconds_of, timed
from kvtune.captioning.bench.workload import Made, Workload
from kvtune.captioning.memory import bytes_per_position

log = logging.getLogger(__name__)

SHORT = 32
"""Tokens of captions that are not measured for themselves: to find the best batch size; to warm up, a quarter."""


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
        ``ms_per_step`` is per forward pass of the decoder.
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


def best_batch(work: Workload, sizes: Sequence[int]) -> int:
    """The batch size at which ``generate()`` makes the most captions a second, on short ones."""

    def speed(size: int) -> float:
        seconds = seconds_of(lambda: work.generate(work.all[:size], size, "sdpa", None), work.vlm.device)
        log.info("trying generate() at batch %d: %.1f short captions/s", size, size / seconds)
        return size / seconds

    with work.short(SHORT):
        return max(sizes, key=speed)


def measure(
    work: Workload, runs: Mapping[str, tuple[str, Callable[[], Made]]], repeats: int, device: Device
) -> Iterator[list[Arm]]:
    """Every arm ``repeats`` times in turn, after one short run of each; the arms so far after each measurement."""
    with work.short(SHORT // 4):
        for name, (_, run) in runs.items():
            log.info("warming up %s", name)
            run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    results: dict[str, Arm] = {}
    for repeat in range(repeats):
        for name, (what, run) in runs.items():
            if work.vlm.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(work.vlm.device)
            elapsed, made = timed(run, work.vlm.device)
            peak = torch.cuda.max_memory_allocated(work.vlm.device) if work.vlm.device.type == "cuda" else None
            seconds[name].append(elapsed)
            work.latest[name] = made
            results[name] = _arm(work, name, what, made, seconds[name], peak, device)
            log.info("%s of %d, %s: %s: %.1f captions/s", repeat + 1, repeats, name, what, made.captions / elapsed)
            yield list(results.values())


def _arm(
    work: Workload,
    name: str,
    what: str,
    made: Made,
    seconds: Sequence[float],
    peak: int | None,
    device: Device,
) -> Arm:
    median = statistics.median(seconds)
    arithmetic, traffic = _least_seconds(work, made, device)
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


def _least_seconds(work: Workload, made: Made, device: Device) -> tuple[float, float]:
    """What the useful tokens would take if nothing but arithmetic, or nothing but memory traffic, took time.

    Arithmetic is two operations a weight and token. Traffic is the weights once a step, and for a token the keys
    and values of half a caption, on average, and of the prompt, which lanes of one image share. Prefill is left
    out, so the shares are on the low side.
    """
    weights = sum(p.numel() for p in work.vlm.decoder.layers.parameters())
    weights += work.vlm.hf_model.get_output_embeddings().weight.numel()
    lanes = 1 if made.plan is None else made.plan.lanes
    positions = made.tokens * (work.prompt_tokens / lanes + made.tokens / made.captions / 2)
    traffic = made.steps * weights * work.vlm.dtype.itemsize + positions * bytes_per_position(work.vlm)
    return 2 * weights * made.tokens / device.flops, traffic / device.bandwidth


def ratios(arms: Mapping[str, Arm], trials: Sequence[int]) -> dict[str, float]:
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
