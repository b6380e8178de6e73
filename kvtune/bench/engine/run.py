"""Speed, memory and noise of the engine, measured in one run beside what it replaces."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kvtune.bench.engine.arms import Way, best_batch, measure, ratios, ratios_range
from kvtune.bench.engine.checks import memory, noise
from kvtune.bench.engine.device import Device, measure_device
from kvtune.bench.engine.fitting import noted
from kvtune.bench.engine.methods import bench_methods, method_list
from kvtune.bench.engine.operations import vision_operations
from kvtune.bench.engine.steps import time_steps
from kvtune.bench.engine.sweep import extrapolated_sweep
from kvtune.bench.engine.workload import Lengths, Workload
from kvtune.captioning import Captioner
from kvtune.captioning.one_device import open_on_one_device
from kvtune.chair import ChairScorer
from kvtune.coco import CocoFolder, find_coco, load_image
from kvtune.coco.truth import coco_truth
from kvtune.errors import KvtuneError, RequestError
from kvtune.methods import Method
from kvtune.models import VisionLanguageModel
from kvtune.models.opening import check_options
from kvtune.models.options import ModelOptions
from kvtune.search.rounds import Plan
from kvtune.spaces import space_for
from kvtune.study.subsets import coco_of

_BATCHED = 64
"""Captions that ``generate()`` makes in batches, or one batch if that is more: enough for its speed."""


def bench_engine(
    captioner: Captioner,
    images: Sequence[Image.Image],
    methods: Sequence[Method],
    *,
    lengths: Lengths | None = None,
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
    captioner
        Says what is measured: model, question, longest caption, lanes.
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
        JSON-ready. ``arms``, ``ratios`` and ``ratios_range`` hold what is measured; ``steps``, ``noise``, ``memory``,
        ``sweep`` and ``spent``, where the time of the arm with the most trials went (its latest run, as by
        :meth:`kvtune.bench.engine.spent.Spent.to_dict`), are None until they are; ``failed`` says what could not be
        measured and why; ``complete`` is true at the end, whatever failed.

    Raises
    ------
    RequestError
        If a method does not fit the model, or an image cannot be read. Any other failure costs what it befalls alone.
    """
    vlm, work = captioner.vlm, Workload(captioner, images, lengths)
    failed: dict[str, str] = {}
    result: dict[str, Any] = {
        "model": vlm.name,
        "dtype": vlm.dtype_name,
        "images": len(images),
        "lanes": captioner.lanes,
        "cuda_graphs": captioner.cuda_graphs and vlm.device.type == "cuda",
        "max_new_tokens": captioner.max_new_tokens,
        "forced_lengths": lengths is not None,
        "settings": [method.parameters() for method in methods],
        "device": dataclasses.asdict(measure_device(vlm.device, vlm.dtype)),
        "arms": [],
        "ratios": {},
        "ratios_range": {},
        "steps": None,
        "sweep": None,
        "spent": None,
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
            if made is not None and made.spent is not None:
                result["spent"] = made.spent.to_dict()
            if made is not None and "c" in by_name:
                rows, seconds = made.batch, 1 / by_name["c"].captions_per_second
                result["sweep"] = extrapolated_sweep(made.finished, rows, trials[-1], seconds)
            keep(result)
        made = work.latest.get(f"e{trials[-1]}")
        if made is not None and made.plan is not None:
            with noted(failed, "steps"):
                for times in time_steps(work, {"kvsmooth": methods[0]}, made.plan.rows, made.plan.lanes):
                    steps = result["steps"] = times["kvsmooth"].to_dict()
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


FORCED_TOKENS = (60, 160)
"""Caption lengths with random weights: the spread of LLaVA-1.5's own captions, about 97 words."""

TRIALS = (8, 16)
"""Trials in flight that can be measured; the last always is."""

MOST_SMOOTHING = 0.5
"""Largest lambda_ref of the drawn settings."""


@dataclass(frozen=True)
class Size:
    """How much is measured.

    Attributes
    ----------
    images, repeats
        Unless the request says.
    single
        Captions of each arm that makes one at a time.
    batch_sizes
        Tried for ``generate()``.
    every_count
        Whether all of :data:`TRIALS` are measured, or the last alone.
    noise_images
        Captions that are made in one lane too.
    """

    images: int
    repeats: int
    single: int
    batch_sizes: tuple[int, ...]
    every_count: bool
    noise_images: int


QUICK_ON_A_GPU = Size(192, 2, 2, (64, 128), False, 16)
"""Under five minutes for LLaVA-1.5-7B on an H100.

A steady slice takes three times as many captions as rows (:func:`kvtune.bench.engine.sweep.steady_slice`); the
engine plans 1024 rows at most, and 3 x 1024 captions of 16 trials are 192 images. Captions are 110 tokens long. From
what papers' ``generate()`` does, some 30 tokens a second, and what a model of the engine's step gives, 9,000, in
seconds a repeat: a0 2 x 110 / 30 = 8, a 9; b a batch of 128, 160 steps of 0.1 s and prefills, 22; c and d 192 captions
at once, 160 steps of 18 ms and 192 prefills of 20 ms, 7 each; e16 3072 x 110 / 9000 = 38. Two repeats: 182. Beside
them the model 20, the batch sizes 8, warming up 10, timing steps 10 x (60 prefills + 96 steps of 27 ms) = 38, one lane
of 16 captions 15: 273 seconds; at 16,000 tokens a second, 235.
"""

QUICK_ON_A_CPU = Size(64, 2, 4, (16, 32, 64), False, 64)
"""Some three minutes for the demo on two cores. Its 1024 captions fit on the grid at once, so no slice is steady."""

FULL = Size(256, 3, 8, (8, 16, 32, 64, 128, 256), True, 64)
"""By the same arithmetic some 12 minutes for LLaVA-1.5-7B on an H100: 3 x (29 + 35 + 22 + 2 x 9 + 25 + 50) = 540
seconds for the arms, and for the rest 200."""


_TURNS = 5
"""Times that steps with methods are timed, unless the request says."""


@dataclass(frozen=True)
class BenchRequest:
    """What ``kvtune bench engine`` was asked for; None is what :data:`QUICK_ON_A_GPU` and its like say."""

    model: ModelOptions
    images: int | None = None
    coco: Path | None = None
    max_new_tokens: int = 512
    repeats: int | None = None
    seed: int = 0
    full: bool = False
    methods: str | None = None
    """Where given, decode steps alone are timed, with each of these; see :mod:`kvtune.bench.engine.methods`."""


@contextmanager
def _plans_said_once() -> Iterator[None]:
    """Keep captioners from saying a plan again each time that its turn comes."""
    captioners, said = logging.getLogger("kvtune.captioning.captioner"), set[str]()

    def is_new(record: logging.LogRecord) -> bool:
        known = record.getMessage() in said
        said.add(record.getMessage())
        return not known

    captioners.addFilter(is_new)
    try:
        yield
    finally:
        captioners.removeFilter(is_new)


@_plans_said_once()
def bench(request: BenchRequest, keep: Callable[[dict[str, Any]], None]) -> None:
    """Measure the engine; see :func:`kvtune.bench.engine.run.bench_engine`.

    Parameters
    ----------
    keep
        Called with the result so far whenever something was measured.

    Raises
    ------
    RequestError
        If the model or the images are missing.
    KvtuneError
        At the end, if something could not be measured.
    """
    from kvtune.models import locate
    from kvtune.models.devices import resolve_device

    model = request.model
    check_options(model)
    if request.methods is not None:
        method_list(request.methods)  # a wrong name is said before anything is loaded
    if not model.random_weights:
        locate(model.name)  # a wrong name is said before anything about images
    on_gpu = resolve_device(model.engine.device).type == "cuda"
    size = FULL if request.full else QUICK_ON_A_GPU if on_gpu else QUICK_ON_A_CPU
    count = request.images or size.images
    draw = np.random.default_rng(request.seed)
    chair_s = lengths = None
    if model.random_weights:
        images = [Image.fromarray(one) for one in draw.integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)]
    else:
        images, chair_s = _images(request, count, draw)
    captioner = open_on_one_device(model, max_new_tokens=request.max_new_tokens)
    if request.methods is not None:
        bench_methods(captioner, images, request.methods, TRIALS[-1], repeats=request.repeats or _TURNS, keep=keep)
        return
    if model.random_weights:
        forced = draw.integers(*FORCED_TOKENS, (count, TRIALS[-1]), endpoint=True)

        def lengths(image: int, trial: int) -> int:
            return int(forced[image, trial])

    result = bench_engine(
        captioner,
        images,
        bench_settings(captioner.vlm, request.seed),
        lengths=lengths,
        repeats=request.repeats or size.repeats,
        single=size.single,
        batch_sizes=size.batch_sizes,
        trials=TRIALS if size.every_count else TRIALS[-1:],
        noise_images=size.noise_images,
        chair_s=chair_s,
        keep=keep,
    )
    if result["failed"]:
        raise KvtuneError("not measured: " + "; ".join(f"{what} ({why})" for what, why in result["failed"].items()))


def bench_settings(vlm: VisionLanguageModel, seed: int) -> list[Method]:
    """As many settings as the most trials: the published preset, if the model has one, and draws from its space.

    The draws have lambda_ref at most :data:`MOST_SMOOTHING`: stronger smoothing makes some captions run on to the
    limit, and captions a second would then compare lengths.
    """
    import optuna

    from kvtune.methods import get_method
    from kvtune.presets import load_preset

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = space_for("kvsmooth", (vlm.name, vlm.family.name), vlm.n_layers).fitted(vlm.n_layers)
    smoothing = space.parameters["lambda_ref"].model_copy(update={"high": MOST_SMOOTHING})
    space = space.model_copy(update={"parameters": {**space.parameters, "lambda_ref": smoothing}})
    drawn = Plan(space, "random", seed, TRIALS[-1]).trials([], 0, TRIALS[-1])
    methods = [get_method("kvsmooth").from_parameters(setting.params) for setting in drawn]
    if vlm.published_preset is not None:
        preset = load_preset(vlm.published_preset)
        if preset.model.layers == vlm.n_layers:
            methods = [preset.method(), *methods[:-1]]
    return methods


def _images(
    request: BenchRequest, count: int, draw: np.random.Generator
) -> tuple[list[Image.Image], Callable[[dict[int, str]], float]]:
    """Images, and CHAIR_S of captions by their numbers."""
    folder = CocoFolder(find_coco(coco_of(request.model.name, request.coco)))
    source = "val2014" if "val2014" in folder.sources else folder.sources[0]
    there = folder.image_ids(source)
    if len(there) < count:
        raise RequestError(f"{source} has {len(there)} images; give --images {len(there)} or fewer")
    ids = [there[index] for index in sorted(draw.choice(len(there), count, replace=False).tolist())]
    scorer = ChairScorer(coco_truth(folder, ids))

    def chair_s(captions: dict[int, str]) -> float:
        return scorer.score([{"image_id": ids[n], "caption": text} for n, text in captions.items()]).chair_s

    return [load_image(path) for path in folder.image_paths(ids)], chair_s
