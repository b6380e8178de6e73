"""What ``kvtune bench engine`` measures on: a model, images, and settings drawn from the model's search space."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kvtune.coco import CocoFolder, find_coco, load_image
from kvtune.errors import RequestError
from kvtune.search.data import DEMO
from kvtune.search.rounds import Plan
from kvtune.search.space import space_for

FORCED_TOKENS = (60, 160)
"""Caption lengths with random weights: the spread of LLaVA-1.5's own captions, about 97 words."""

TRIALS = (8, 16)


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


def bench(request: BenchRequest) -> dict[str, Any]:
    """Measure the engine; see :func:`kvtune.captioning.bench.bench_engine`.

    Raises
    ------
    RequestError
        If the model or the images are missing.
    """
    from PIL import Image

    from kvtune.captioning.bench import bench_engine
    from kvtune.methods import get_method
    from kvtune.models import load_model
    from kvtune.models.loading import resolve_device, resolve_dtype
    from kvtune.models.random_weights import CONFIGS, random_model

    if request.lanes != "auto" and not (request.lanes.isdigit() and int(request.lanes) > 0):
        raise RequestError(f"--lanes must be auto or a whole number above 0, not {request.lanes!r}")
    draw = np.random.default_rng(request.seed)
    lengths = None
    if request.random_weights:
        device = resolve_device(request.device)
        if request.revision is not None or request.load_in_4bit or request.load_in_8bit:
            raise RequestError("--revision and quantization are for stored weights; leave them or --random-weights out")
        if request.model not in CONFIGS:
            raise RequestError(f"--random-weights builds {', '.join(CONFIGS)}, not {request.model!r}")
        dtype_name = request.dtype if request.dtype != "auto" else "bfloat16" if device.type == "cuda" else "float32"
        vlm = random_model(request.model, device, resolve_dtype(dtype_name, device, CONFIGS[request.model]()))
        pixels = draw.integers(0, 256, (request.images, 64, 64, 3), dtype=np.uint8)
        images = [Image.fromarray(one) for one in pixels]
        forced = draw.integers(*FORCED_TOKENS, (request.images, TRIALS[-1]), endpoint=True)

        def lengths(image: int, trial: int) -> int:
            return int(forced[image, trial])

    else:
        vlm = load_model(
            request.model,
            request.device,
            request.dtype,
            request.revision,
            request.load_in_4bit,
            request.load_in_8bit,
        )
        folder = _folder(request)
        source = "val2014" if "val2014" in folder.sources else folder.sources[0]
        ids = folder.image_ids(source)
        if len(ids) < request.images:
            raise RequestError(f"{source} has {len(ids)} images; give --images {len(ids)} or fewer")
        chosen = sorted(draw.choice(len(ids), request.images, replace=False).tolist())
        images = [load_image(path) for path in folder.image_paths([ids[index] for index in chosen])]
    method = get_method("kvsmooth")
    space = space_for("kvsmooth", (vlm.name, vlm.family.name), vlm.n_layers).fitted(vlm.n_layers)
    settings = Plan(space, "random", request.seed, TRIALS[-1]).trials([], 0, TRIALS[-1])
    methods = [method.from_parameters(setting.params) for setting in settings]
    return bench_engine(
        vlm,
        images,
        methods,
        max_new_tokens=request.max_new_tokens,
        lengths=lengths,
        lanes="auto" if request.lanes == "auto" else int(request.lanes),
        repeats=request.repeats,
        trials=TRIALS,
    )


def _folder(request: BenchRequest) -> CocoFolder:
    if request.model == DEMO and request.coco is None:
        from kvtune.demo import demo_coco

        return CocoFolder(demo_coco())
    return CocoFolder(find_coco(request.coco))
