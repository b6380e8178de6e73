"""What a reproduction is of, checked before anything is written or captioned."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kvtune.chair import load_ground_truth
from kvtune.coco import Subset
from kvtune.errors import RequestError, together
from kvtune.files import check_writable
from kvtune.models.opening import check_options
from kvtune.models.options import ModelOptions
from kvtune.models.published import MODELS
from kvtune.presets import Preset
from kvtune.reproduce.constant_factor import factor_settings, factor_sweep, scoring_of
from kvtune.reproduce.documents import ModelFolder, Reproduction, load_reproduction
from kvtune.reproduce.paper_settings import LAMBDAS, PAPER_MODELS, Table, published_preset, rows
from kvtune.reproduce.paper_subset import Images, find_images, image_count, reporting_subset
from kvtune.study.caption_log import read_captions
from kvtune.study.fingerprint import difference_from, model_in_fingerprint
from kvtune.study.study_folder import plain_name
from kvtune.study.subsets import DEMO, coco_of

DEFAULT_OUT = Path("reproductions")


@dataclass(frozen=True)
class Request:
    """What ``kvtune reproduce`` was asked for; ``images`` None is the whole reporting set."""

    table: Table
    models: Sequence[ModelOptions] = tuple(map(ModelOptions, PAPER_MODELS))
    images: int | None = None
    coco: Path | None = None
    out: Path = DEFAULT_OUT


@dataclass(frozen=True)
class ModelPlan:
    """One model, checked: ``images`` is None where all captions are there and only scores are wanted."""

    request: Request
    model: ModelOptions
    name: str
    source: str
    preset: Preset
    folder: ModelFolder
    begun: Reproduction | None
    reporting: Subset
    count: int
    images: Images | None

    @property
    def image_ids(self) -> list[int]:
        """The images to report on."""
        return list(self.reporting.image_ids[: self.count])


def plans(request: Request) -> list[ModelPlan]:
    """Check everything that can be refused, without writing anything.

    Raises
    ------
    RequestError
        If something asked for is wrong or missing, or would mix captions of two models or settings.
    """
    if not request.models:
        raise RequestError(f"--models names no model; leave it out for {', '.join(PAPER_MODELS)}")
    check_writable(request.out / "reproduction.json")
    from kvtune.models import locate

    located: dict[ModelFolder, tuple[ModelOptions, str, str]] = {}
    for model in request.models:
        check_options(model)
        try:
            _, source, name = locate(model.name)
        except RequestError as error:
            if model.name not in MODELS:
                raise
            raise _with_all_that_is_missing(error, request) from None
        folder = ModelFolder(request.out / plain_name(name))
        if folder in located:
            raise RequestError(
                f"--models {located[folder][0].name} and {model.name} would both be kept in {folder.path}; run one of "
                "them with another --out"
            )
        located[folder] = model, model_in_fingerprint(name, source), name
    data: dict[bool, Images] = {}
    return [_plan(request, *place, folder, data) for folder, place in located.items()]


def refuse_difference(folder: ModelFolder, begun: Reproduction, now: Mapping[str, Any]) -> None:
    """Refuse to go on with what was begun with another fingerprint than ``now``, as far as that says."""
    if (found := difference_from(begun.fingerprint, now)) is not None:
        raise RequestError(f"reproduction {folder.path} was begun with {found}; give another --out folder")


def has_truth(folder: ModelFolder, image_ids: Sequence[int]) -> bool:
    """Whether it is known what is in these images."""
    return folder.ground_truth.exists() and load_ground_truth(folder.ground_truth).keys() >= set(image_ids)


def _plan(
    request: Request, model: ModelOptions, source: str, name: str, folder: ModelFolder, data: dict[bool, Images]
) -> ModelPlan:
    from kvtune.models import get_family
    from kvtune.models.availability import at_hand

    demo = name == DEMO
    reporting = reporting_subset(demo)
    count = image_count(request.images, reporting)
    begun = load_reproduction(folder)
    if begun is None and (folder.path / "captions").exists():
        raise RequestError(
            f"{folder.path} has captions but no {folder.manifest.name}; restore it, or give another --out"
        )
    if begun is not None:
        now = {"model": source, "reporting": reporting.sha256}
        refuse_difference(folder, begun, now | _asked_dtype(model, begun.fingerprint.dtype))
        preset = published_preset(get_family(begun.family))
        if _is_complete(request.table, name, folder, begun, reporting, count):
            return ModelPlan(request, model, name, source, preset, folder, begun, reporting, count, None)
    try:
        family = at_hand(model.name).family
        if demo not in data:
            data[demo] = find_images(coco_of(name, request.coco), reporting, count)
    except RequestError as error:
        raise _with_all_that_is_missing(error, request) from None
    preset = published_preset(family)
    _same_tune_images(folder, begun, data[demo].tune)
    return ModelPlan(request, model, name, source, preset, folder, begun, reporting, count, data[demo])


def _with_all_that_is_missing(error: RequestError, request: Request) -> RequestError:
    """The error, and what else is missing of published models' weights and of the images."""
    from kvtune.models.availability import at_hand

    names = [model.name for model in request.models if model.name in MODELS]
    weights = [partial(at_hand, name) for name in names]
    reporting = reporting_subset(demo=False)
    count = image_count(request.images, reporting)
    images = [partial(find_images, request.coco, reporting, count)] if set(names) - {DEMO} else []
    return together(error, *weights, *images)


def _asked_dtype(model: ModelOptions, begun: str) -> dict[str, str]:
    """What the options say of the dtype, as a fingerprint has it; empty where they leave it to what was begun."""
    bits = "-4bit" if model.load_in_4bit else "-8bit" if model.load_in_8bit else ""
    if model.dtype == "auto" and not bits:
        return {}
    return {"dtype": (begun.partition("-")[0] if model.dtype == "auto" else model.dtype) + bits}


def _same_tune_images(folder: ModelFolder, begun: Reproduction | None, tune: Subset) -> None:
    """Refuse tune images of another draw: those of a smaller one have to be the first of a larger one."""
    if begun is None:
        return
    before = begun.tune.image_ids
    shared = min(len(before), len(tune.image_ids))
    if tune.image_ids[:shared] != before[:shared]:
        raise RequestError(
            f"reproduction {folder.path} was begun with other tune images than {tune.name} of this COCO folder; "
            "name the one it was begun with, or another --out folder"
        )


def _is_complete(
    table: Table, model: str, folder: ModelFolder, begun: Reproduction, reporting: Subset, count: int
) -> bool:
    """Whether every caption of a table is there, so that neither weights nor images are needed."""
    image_ids, tune_ids = list(reporting.image_ids[:count]), begun.tune.image_ids[:count]
    if len(tune_ids) < count or not has_truth(folder, [*image_ids, *tune_ids]):
        return False
    if not all(_has_all(folder.tune_captions(factor), tune_ids) for factor in LAMBDAS):
        return False
    scoring = scoring_of(folder, [*image_ids, *tune_ids])
    chosen = factor_sweep(factor_settings(folder, {}), scoring, tune_ids, begun.tune).chosen
    return all(_has_all(folder.captions(name, chosen), image_ids) for name in rows(table, model, begun.layers))


def _has_all(path: Path, image_ids: Sequence[int]) -> bool:
    return read_captions(path).keys() >= set(image_ids)
