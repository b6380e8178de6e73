"""The arms of the bench: how fast each makes captions, and how they compare."""

from __future__ import annotations

import dataclasses
import logging
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch

from kvtune.bench.engine.device import Device, seconds_of, timed
from kvtune.bench.engine.fitting import fitting, noted
from kvtune.bench.engine.operations import decoder_weights, mean_positions, operations
from kvtune.bench.engine.workload import Made, Workload
from kvtune.captioning.memory import bytes_per_position, free_cached_memory
from kvtune.device_errors import is_out_of_memory

log = logging.getLogger(__name__)

SHORT = 32
"""Tokens of captions that are not measured for themselves: to find the best batch size; to warm up, a quarter."""

_WARM_IMAGES = 16
"""Images on which an arm warms up: enough to load libraries and compile kernels."""


@dataclasses.dataclass(frozen=True)
class Way:
    """A way of making captions.

    Attributes
    ----------
    what
        In words; the batch size stands for ``{batch}``.
    run
        Makes the captions, as many at once as it is told; the engine sees to that itself.
    batch
        How many to begin with; 1 also for the engine.
    """

    what: str
    run: Callable[[int], Made]
    batch: int = 1


@dataclasses.dataclass(frozen=True)
class Arm:
    """One way of making captions, measured.

    Attributes
    ----------
    batch
        Captions decoded at once: the batch size, or the rows that the engine planned.
    asked_batch
        The batch size that was tried first, where the device had no room for it; else None.
    captions, tokens
        Made in one repeat; tokens without padding and without what comes after an end of text.
    seconds
        Median over repeats.
    every_seconds
        Of each repeat.
    captions_per_second, tokens_per_second, ms_per_step
        ``ms_per_step`` is per forward pass of the decoder.
    repeats
        Runs that the median is of.
    peak_bytes
        Most device memory held; None on a CPU.
    of_matmul, of_copy
        Share of the speed that the device's measured matrix product, and its measured copy, would allow; of the decode
        steps' work alone, though all time counts.
    of_matmul_all
        The same share with all operations counted: vision tower, prompts, and the attention's own products; see
        :func:`kvtune.bench.engine.operations.operations`.
    """

    name: str
    what: str
    batch: int
    asked_batch: int | None
    captions: int
    tokens: int
    repeats: int
    seconds: float
    every_seconds: list[float]
    captions_per_second: float
    tokens_per_second: float
    ms_per_step: float
    peak_bytes: int | None
    of_matmul: float
    of_matmul_all: float
    of_copy: float


def best_batch(work: Workload, sizes: Sequence[int]) -> int:
    """The batch size at which ``generate()`` makes the most captions a second, on short ones.

    A size that the device has no room for is passed over, and larger ones with it; where there is room for none, it is
    halved until there is.
    """

    def seconds(size: int) -> float:
        return seconds_of(lambda: work.generate(work.all[:size], size, "sdpa", None), work.vlm.device)

    speeds: dict[int, float] = {}
    with work.short(SHORT):
        for size in sorted(sizes):
            try:
                speeds[size] = size / seconds(size)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            if size not in speeds:
                log.warning("generate() at batch %d does not fit into the device's memory", size)
                free_cached_memory()
                break
            log.info("trying generate() at batch %d: %.1f short captions/s", size, speeds[size])
        if not speeds:
            return fitting(seconds, max(1, min(sizes) // 2))[0]
    return max(speeds, key=lambda size: speeds[size])


def measure(
    work: Workload, ways: Mapping[str, Way], repeats: int, device: Device, vision: int, failed: dict[str, str]
) -> Iterator[list[Arm]]:
    """Every arm ``repeats`` times in turn, after a short run of each; the arms so far after each measurement.

    The first and the last of ``ways``, whose ratio tells most, come first: time may be up before all have had theirs.

    Parameters
    ----------
    vision
        Operations that an image takes before the decoder.
    failed
        Where it is written why an arm could not be measured; it is not tried again.
    """
    names = list(ways)
    turns = list(dict.fromkeys([names[0], names[-1], *names]))
    with work.short(SHORT // 4, _WARM_IMAGES):
        for name in turns:
            log.info("warming up %s", name)
            with noted(failed, name):
                fitting(ways[name].run, ways[name].batch)
    batches = {name: way.batch for name, way in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    results: dict[str, Arm] = {}
    for repeat in range(repeats):
        for name in turns:
            way = ways[name]
            if name in failed:
                continue
            with noted(failed, name):
                if work.vlm.device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats(work.vlm.device)
                batch, (elapsed, made) = fitting(
                    lambda size, way=way: timed(lambda: way.run(size), work.vlm.device),  # type: ignore[misc]
                    batches[name],
                )
                peak = torch.cuda.max_memory_allocated(work.vlm.device) if work.vlm.device.type == "cuda" else None
                if batch != batches[name]:
                    batches[name], seconds[name] = batch, []
                seconds[name].append(elapsed)
                work.latest[name] = made
                asked = None if batch == way.batch else way.batch
                what = way.what.format(batch=made.batch)
                results[name] = _arm(work, name, what, asked, made, seconds[name], peak, device, vision)
                log.info("%s of %d, %s: %s: %.1f captions/s", repeat + 1, repeats, name, what, made.captions / elapsed)
            yield [results[name] for name in ways if name in results]


def _arm(
    work: Workload,
    name: str,
    what: str,
    asked: int | None,
    made: Made,
    seconds: Sequence[float],
    peak: int | None,
    device: Device,
    vision: int,
) -> Arm:
    median = statistics.median(seconds)
    arithmetic, traffic = _least_seconds(work, made, device)
    return Arm(
        name=name,
        what=what,
        batch=made.batch,
        asked_batch=asked,
        captions=made.captions,
        tokens=made.tokens,
        repeats=len(seconds),
        seconds=median,
        every_seconds=list(seconds),
        captions_per_second=made.captions / median,
        tokens_per_second=made.tokens / median,
        ms_per_step=1e3 * median / max(1, made.steps),
        peak_bytes=peak,
        of_matmul=arithmetic / median,
        of_matmul_all=operations(work, made, vision) / device.flops / median,
        of_copy=traffic / median,
    )


def _least_seconds(work: Workload, made: Made, device: Device) -> tuple[float, float]:
    """What the useful tokens would take if nothing but arithmetic, or nothing but memory traffic, took time.

    Arithmetic is two operations a weight and token. Traffic is the weights once a step, and for a token the keys
    and values of half a caption, on average, and of the prompt, which lanes of one image share. Prefill is left
    out, so the shares are on the low side.
    """
    weights = sum(decoder_weights(work.vlm))
    lanes = 1 if made.plan is None else made.plan.lanes
    own = mean_positions(work, made) - work.prompt_tokens
    positions = made.tokens * (work.prompt_tokens / lanes + own)
    traffic = made.steps * weights * work.vlm.dtype.itemsize + positions * bytes_per_position(work.vlm)
    return 2 * weights * made.tokens / device.flops, traffic / device.bandwidth


def ratios(arms: Mapping[str, Arm], trials: Sequence[int]) -> dict[str, float]:
    """How the arms compare, as far as they are measured; above 1 is slower for ``attached``, faster for the others."""
    return _ratios({name: (arm.captions_per_second, arm.tokens_per_second) for name, arm in arms.items()}, trials)


def ratios_range(arms: Mapping[str, Arm], trials: Sequence[int]) -> dict[str, list[float]]:
    """The smallest and the largest of each of the :func:`ratios` over repeats, each within one repeat."""
    found: dict[str, list[float]] = {}
    for repeat in range(max(len(arm.every_seconds) for arm in arms.values())):
        speeds = {
            name: (arm.captions / arm.every_seconds[repeat], arm.tokens / arm.every_seconds[repeat])
            for name, arm in arms.items()
            if repeat < len(arm.every_seconds)
        }
        for name, ratio in _ratios(speeds, trials).items():
            found.setdefault(name, []).append(ratio)
    return {name: [min(ratios), max(ratios)] for name, ratios in found.items()}


def _ratios(speeds: Mapping[str, tuple[float, float]], trials: Sequence[int]) -> dict[str, float]:
    """From captions and tokens a second of each arm."""
    ratios = {}
    if {"a0", "a"} <= speeds.keys():
        ratios["attached_over_plain_per_token"] = speeds["a0"][1] / speeds["a"][1]
    for count in trials:
        for other in ("a0", "b"):
            if {f"e{count}", other} <= speeds.keys():
                mine, theirs = speeds[f"e{count}"], speeds[other]
                ratios[f"e{count}_over_{other}"] = mine[0] / theirs[0]
                ratios[f"e{count}_over_{other}_tokens"] = mine[1] / theirs[1]
    return ratios
