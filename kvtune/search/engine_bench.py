"""What ``kvtune bench engine`` measures on: a model, images, and settings drawn from the model's search space."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from kvtune.chair import ChairScorer
from kvtune.coco import CocoFolder, find_coco, load_image
from kvtune.errors import RequestError
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

MOST_SMOOTHING = 0.5
"""Largest lambda_ref of the drawn settings."""


@dataclass(frozen=True)
class BenchRequest:
    """What ``kvtune bench engine`` was asked for."""

    model: str
    images: int
    random_weights: bool
    coco: Path | None
    max_new_tokens: int
    repeats: int
    lanes: str
    device: str
    dtype: str
    seed: int
    revision: str | None = None
    load_in_4bit: bool = False
    load_in_8bit: bool = False
    cuda_graphs: bool = True


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
    """
    from kvtune.captioning.bench import bench_engine

    if request.lanes != "auto" and not (request.lanes.isdigit() and int(request.lanes) > 0):
        raise RequestError(f"--lanes must be auto or a whole number above 0, not {request.lanes!r}")
    draw = np.random.default_rng(request.seed)
    vlm, images, chair_s = _without_weights(request, draw) if request.random_weights else _with_weights(request, draw)
    lengths = None
    if request.random_weights:
        forced = draw.integers(*FORCED_TOKENS, (request.images, TRIALS[-1]), endpoint=True)

        def lengths(image: int, trial: int) -> int:
            return int(forced[image, trial])

    bench_engine(
        vlm,
        images,
        bench_settings(vlm, request.seed),
        max_new_tokens=request.max_new_tokens,
        lengths=lengths,
        lanes="auto" if request.lanes == "auto" else int(request.lanes),
        cuda_graphs=request.cuda_graphs,
        repeats=request.repeats,
        trials=TRIALS,
        chair_s=chair_s,
        keep=keep,
    )


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


def _without_weights(request: BenchRequest, draw: np.random.Generator) -> "_Subject":
    from PIL import Image

    from kvtune.models.loading import resolve_device
    from kvtune.models.random_weights import random_model

    if request.revision is not None or request.load_in_4bit or request.load_in_8bit:
        raise RequestError("--revision and quantization are for stored weights; leave them or --random-weights out")
    vlm = random_model(request.model, resolve_device(request.device), request.dtype)
    pixels = draw.integers(0, 256, (request.images, 64, 64, 3), dtype=np.uint8)
    return vlm, [Image.fromarray(one) for one in pixels], None


def _with_weights(request: BenchRequest, draw: np.random.Generator) -> "_Subject":
    from kvtune.models import load_model

    folder = _folder(request)
    source = "val2014" if "val2014" in folder.sources else folder.sources[0]
    there = folder.image_ids(source)
    if len(there) < request.images:
        raise RequestError(f"{source} has {len(there)} images; give --images {len(there)} or fewer")
    ids = [there[index] for index in sorted(draw.choice(len(there), request.images, replace=False).tolist())]
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
