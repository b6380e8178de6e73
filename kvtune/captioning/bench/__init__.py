"""Speed, memory and noise of the engine, measured in one run beside what it replaces."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from PIL import Image

from kvtune.captioning.bench.arms import best_batch, measure, ratios
from kvtune.captioning.bench.checks import memory, noise, step_overhead
from kvtune.captioning.bench.device import Device, measure_device
from kvtune.captioning.bench.sweep import extrapolated_sweep
from kvtune.captioning.bench.workload import Lengths, Made, Workload
from kvtune.captioning.memory import Lanes
from kvtune.methods import Method
from kvtune.models import VisionLanguageModel


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
    work = Workload(vlm, images, prompt, max_new_tokens, lengths, lanes, cuda_graphs)
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
    with work.ends_forced():
        best = best_batch(work, [size for size in batch_sizes if size <= len(images)] or [len(images)])
        one = list(range(min(single, len(images))))
        arms: dict[str, tuple[str, Callable[[], Made]]] = {
            "a0": ("generate(), one at a time, eager, no method", lambda: work.generate(one, 1, "eager", None)),
            "a": ("generate(), one at a time, KVSmooth attached", lambda: work.generate(one, 1, None, methods[0])),
            "b": (f"generate(), batch {best}, SDPA, no method", lambda: work.generate(work.all, best, "sdpa", None)),
            "c": ("engine, no method", lambda: work.engine([None])),
            "d": ("engine, KVSmooth, 1 trial", lambda: work.engine(methods[:1])),
        }
        for count in trials:
            arms[f"e{count}"] = (
                f"engine, KVSmooth, {count} trials",
                lambda count=count: work.engine(methods[:count]),  # type: ignore[misc]
            )
        most = f"e{trials[-1]}"
        for measured in measure(work, arms, repeats, device):
            by_name = {arm.name: arm for arm in measured}
            result["arms"] = [dataclasses.asdict(arm) for arm in measured]
            result["ratios"] = ratios(by_name, trials)
            made = work.latest.get(most)
            if made is not None and made.plan is not None:
                rows, seconds = made.plan.rows, 1 / by_name["c"].captions_per_second
                result["sweep"] = extrapolated_sweep(made.finished, rows, trials[-1], seconds)
            keep(result)
        result["ratios"]["smoothing_over_none_per_step"] = step_overhead(work, methods[0])
        keep(result)
        result["memory"] = memory(work, methods[: trials[-1]], work.latest[most], by_name[most].peak_bytes)
        keep(result)
        result["noise"] = noise(work, methods[: trials[-1]], chair_s)
        result["complete"] = True
        keep(result)
    return result
