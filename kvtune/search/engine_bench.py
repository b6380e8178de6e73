"""What ``kvtune bench engine`` measures on: a model, images, and settings drawn from the model's search space."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from kvtune.chair import ChairScorer
from kvtune.coco import CocoFolder, find_coco, load_image
from kvtune.errors import KvtuneError, RequestError
from kvtune.search.data import DEMO
from kvtune.search.rounds import Plan
from kvtune.search.space import space_for
from kvtune.search.truth import coco_truth

if TYPE_CHECKING:
    from PIL import Image

    from kvtune.methods import Method
    from kvtune.models import VisionLanguageModel

    _Subject: TypeAlias = tuple[VisionLanguageModel, list[Image.Image], Callable[[dict[int, str]], float] | None]

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

A steady slice takes three times as many captions as rows (:func:`kvtune.captioning.bench.sweep.steady_slice`); the
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


@dataclass(frozen=True)
class BenchRequest:
    """What ``kvtune bench engine`` was asked for; None is what :data:`QUICK_ON_A_GPU` and its like say."""

    model: str
    images: int | None
    random_weights: bool
    coco: Path | None
    max_new_tokens: int
    repeats: int | None
    lanes: str
    device: str
    dtype: str
    seed: int
    revision: str | None = None
    load_in_4bit: bool = False
    load_in_8bit: bool = False
    cuda_graphs: bool = True
    full: bool = False


def bench(request: BenchRequest, keep: Callable[[dict[str, Any]], None]) -> None:
    """Measure the engine; see :func:`kvtune.captioning.bench.bench_engine`.

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
    from kvtune.captioning.bench import bench_engine
    from kvtune.models.loading import resolve_device

    if request.lanes != "auto" and not (request.lanes.isdigit() and int(request.lanes) > 0):
        raise RequestError(f"--lanes must be auto or a whole number above 0, not {request.lanes!r}")
    on_gpu = resolve_device(request.device).type == "cuda"
    size = FULL if request.full else QUICK_ON_A_GPU if on_gpu else QUICK_ON_A_CPU
    count = request.images or size.images
    draw = np.random.default_rng(request.seed)
    make = _without_weights if request.random_weights else _with_weights
    vlm, images, chair_s = make(request, count, draw)
    lengths = None
    if request.random_weights:
        forced = draw.integers(*FORCED_TOKENS, (count, TRIALS[-1]), endpoint=True)

        def lengths(image: int, trial: int) -> int:
            return int(forced[image, trial])

    result = bench_engine(
        vlm,
        images,
        bench_settings(vlm, request.seed),
        max_new_tokens=request.max_new_tokens,
        lengths=lengths,
        lanes="auto" if request.lanes == "auto" else int(request.lanes),
        cuda_graphs=request.cuda_graphs,
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


def bench_settings(vlm: "VisionLanguageModel", seed: int) -> "list[Method]":
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


def _without_weights(request: BenchRequest, count: int, draw: np.random.Generator) -> "_Subject":
    from PIL import Image

    from kvtune.models.loading import resolve_device
    from kvtune.models.random_weights import random_model

    if request.revision is not None or request.load_in_4bit or request.load_in_8bit:
        raise RequestError("--revision and quantization are for stored weights; leave them or --random-weights out")
    vlm = random_model(request.model, resolve_device(request.device), request.dtype)
    pixels = draw.integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
    return vlm, [Image.fromarray(one) for one in pixels], None


def _with_weights(request: BenchRequest, count: int, draw: np.random.Generator) -> "_Subject":
    from kvtune.models import load_model

    folder = _folder(request)
    source = "val2014" if "val2014" in folder.sources else folder.sources[0]
    there = folder.image_ids(source)
    if len(there) < count:
        raise RequestError(f"{source} has {len(there)} images; give --images {len(there)} or fewer")
    ids = [there[index] for index in sorted(draw.choice(len(there), count, replace=False).tolist())]
    images = [load_image(path) for path in folder.image_paths(ids)]
    truth = coco_truth(folder, ids)
    scorer = ChairScorer(truth)

    def chair_s(captions: dict[int, str]) -> float:
        return scorer.score([{"image_id": ids[n], "caption": text} for n, text in captions.items()]).chair_s

    vlm = load_model(
        request.model, request.device, request.dtype, request.revision, request.load_in_4bit, request.load_in_8bit
    )
    return vlm, images, chair_s


def _folder(request: BenchRequest) -> CocoFolder:
    if request.model == DEMO and request.coco is None:
        from kvtune.demo import demo_coco

        return CocoFolder(demo_coco())
    return CocoFolder(find_coco(request.coco))
