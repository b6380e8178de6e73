"""Speed, memory and noise of the engine, measured in one run beside what it replaces."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from PIL import Image

from kvtune.captioning.bench.arms import Way, best_batch, measure, ratios, ratios_range
from kvtune.captioning.bench.checks import memory, noise
from kvtune.captioning.bench.device import Device, measure_device
from kvtune.captioning.bench.fitting import noted
from kvtune.captioning.bench.operations import vision_operations
from kvtune.captioning.bench.steps import time_steps
from kvtune.captioning.bench.sweep import extrapolated_sweep
from kvtune.captioning.bench.workload import Lengths, Workload
from kvtune.captioning.memory import Lanes
from kvtune.methods import Method
from kvtune.models import VisionLanguageModel

_BATCHED = 64
"""Captions that ``generate()`` makes in batches, or one batch if that is more: enough for its speed."""


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
    noise_images: int = 64,
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
    noise_images
        Captions that are made in one lane too, to see what batch shape changes.
    chair_s
        CHAIR_S of captions by image number, where it is known what the images show.
    keep
        Called with the result so far whenever something was measured.

    Returns
    -------
    dict
        JSON-ready. ``arms``, ``ratios`` and ``ratios_range`` hold what is measured; ``steps``, ``noise``, ``memory``
        and ``sweep`` are None until they are; ``failed`` says what could not be measured and why; ``complete`` is true
        at the end, whatever failed.

    Raises
    ------
    RequestError
        If a method does not fit the model, or an image cannot be read. Any other failure costs what it befalls alone.
    """
    work = Workload(vlm, images, prompt, max_new_tokens, lengths, lanes, cuda_graphs)
    failed: dict[str, str] = {}
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
        "ratios_range": {},
        "steps": None,
        "sweep": None,
        "memory": None,
        "noise": None,
        "failed": failed,
        "complete": False,
    }
    device = Device(**result["device"])
    keep(result)
    with work.ends_forced():
        vision, best = 0, 1
        with noted(failed, "vision tower"):
            vision = vision_operations(work)
        with noted(failed, "best batch"):
            best = best_batch(work, [size for size in batch_sizes if size <= len(images)] or [len(images)])
        one = work.all[:single]
        ways = {
            "a0": Way("generate(), one at a time, eager, no method", lambda _: work.generate(one, 1, "eager", None)),
            "a": Way("generate(), one at a time, KVSmooth attached", lambda _: work.generate(one, 1, None, methods[0])),
            "b": Way(
                "generate(), batch {batch}, SDPA, no method",
                lambda batch: work.generate(work.all[: max(best, _BATCHED)], batch, "sdpa", None),
                best,
            ),
            "c": Way("engine, no method", lambda _: work.engine([None])),
            "d": Way("engine, KVSmooth, 1 trial", lambda _: work.engine(methods[:1])),
        }
        for count in trials:
            ways[f"e{count}"] = Way(
                f"engine, KVSmooth, {count} trials",
                lambda _, count=count: work.engine(methods[:count]),  # type: ignore[misc]
            )
        by_name = {}
        for measured in measure(work, ways, repeats, device, vision, failed):
            by_name = {arm.name: arm for arm in measured}
            result["arms"] = [dataclasses.asdict(arm) for arm in measured]
            if by_name:
                result["ratios"], result["ratios_range"] = ratios(by_name, trials), ratios_range(by_name, trials)
            made = work.latest.get(f"e{trials[-1]}")
            if made is not None and "c" in by_name:
                rows, seconds = made.batch, 1 / by_name["c"].captions_per_second
                result["sweep"] = extrapolated_sweep(made.finished, rows, trials[-1], seconds)
            keep(result)
        made = work.latest.get(f"e{trials[-1]}")
        if made is not None and made.plan is not None:
            with noted(failed, "steps"):
                steps = time_steps(work, methods[0], made.plan.rows, made.plan.lanes).to_dict()
                result["steps"] = steps
                result["ratios"]["smoothing_over_none_per_step"] = steps["ratio"]
                result["ratios_range"]["smoothing_over_none_per_step"] = steps["ratio_range"]
            keep(result)
            with noted(failed, "memory"):
                peak = by_name[f"e{trials[-1]}"].peak_bytes
                result["memory"] = memory(work, methods[: trials[-1]], made, peak)
            keep(result)
        with noted(failed, "noise"):
            result["noise"] = noise(work, methods[: trials[-1]], noise_images, chair_s)
        result["complete"] = True
        keep(result)
    return result
