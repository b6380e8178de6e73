"""Captioning and scoring what the paper's tables compare, model after model."""

import gc
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kvtune.chair import load_ground_truth, save_ground_truth
from kvtune.coco import Subset
from kvtune.coco.subset import ids_sha256
from kvtune.errors import RequestError
from kvtune.presets import Preset
from kvtune.search.captions import captions_of, read_captions
from kvtune.search.data import DEMO
from kvtune.search.held_out import Result
from kvtune.search.judging import CaptionWriter, Image, Number
from kvtune.search.layout import plain_name
from kvtune.search.lock import locked
from kvtune.search.manifest import first_difference, versions
from kvtune.search.more_captions import Setting, caption_files
from kvtune.search.outcomes import Outcomes
from kvtune.search.reproduce.documents import (
    FORMAT,
    Fingerprint,
    Manifest,
    ModelFolder,
    ModelResult,
    SettingResult,
    Sweep,
    SweepPoint,
    load_manifest,
)
from kvtune.search.reproduce.images import Images, check_count, find_images, reporting_subset
from kvtune.search.reproduce.settings import (
    LAMBDAS,
    METHOD,
    PAPER_MODELS,
    TABLES,
    SettingName,
    Table,
    choose_factor,
    constant_parameters,
    parameters_of,
    published_parameters,
    published_preset,
)
from kvtune.search.scoring import Scoring
from kvtune.search.statistics import CONFIDENCE, RESAMPLES, SEED, Bootstrap
from kvtune.search.uncertainty import differences_to_baseline
from kvtune.search.validation import entries

if TYPE_CHECKING:
    from kvtune.models import VisionLanguageModel

DEFAULT_OUT = Path("reproductions")

Show = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
"""Shows a long step by its name; what it gives takes (done, total)."""


@dataclass(frozen=True)
class Request:
    """What ``kvtune reproduce`` was asked for; ``images`` None is the whole reporting set."""

    table: Table
    models: Sequence[str] = PAPER_MODELS
    images: int | None = None
    coco: Path | None = None
    out: Path = DEFAULT_OUT
    device: str = "auto"
    dtype: str = "auto"
    load_in_4bit: bool = False
    load_in_8bit: bool = False
    lanes: str = "auto"


@dataclass(frozen=True)
class _Plan:
    """One model, checked: ``images`` is None where all captions are there and only scores are wanted."""

    request: Request
    model: str
    name: str
    source: str
    preset: Preset
    folder: ModelFolder
    begun: Manifest | None
    reporting: Subset
    count: int
    images: Images | None

    @property
    def image_ids(self) -> list[int]:
        """The images to report on."""
        return list(self.reporting.image_ids[: self.count])


def reproduce(
    request: Request, show: Show, note: Callable[[str], None] = lambda text: None
) -> Iterator[tuple[ModelFolder, ModelResult]]:
    """Caption, score and compare what a table of the paper compares; one model after another.

    Captions that were paid for are kept below ``request.out`` and never written twice, whichever table they were
    written for; the same call goes on after an interruption. All models, weights and images are looked for before the
    first caption.

    Parameters
    ----------
    show
        Shows each model's captions as they come.
    note
        Says something once.

    Yields
    ------
    (ModelFolder, ModelResult)
        As each model is done.

    Raises
    ------
    RequestError
        If something asked for is wrong or missing, or would mix captions of two models or settings; nothing long was
        done.
    KvtuneError
        If captioning fails; no caption is lost.
    """
    plans = _plans(request)
    with ExitStack() as stack:
        for plan in plans:
            stack.enter_context(locked(plan.folder.path, "reproduction", "--out folder"))
        for plan in plans:
            if load_manifest(plan.folder) != plan.begun:
                raise RequestError(f"{plan.folder.path} was just begun by another process; give the command again")
        for images in {id(plan.images): plan.images for plan in plans if plan.images is not None}.values():
            with show("images checked") as on_progress:
                images.check(on_progress)
        for number, plan in enumerate(plans, 1):
            note(f"{plan.name}: captions are kept in {plan.folder.path}")
            with show(f"{plan.name} ({number} of {len(plans)}), captions") as on_progress:
                result = _reproduce(plan, on_progress)
            _free_memory()
            yield plan.folder, result


def _plans(request: Request) -> list[_Plan]:
    """Check everything that can be refused, without writing anything."""
    if request.lanes != "auto" and not (request.lanes.isdigit() and int(request.lanes) > 0):
        raise RequestError(f"--lanes must be auto or a whole number above 0, not {request.lanes!r}")
    if not request.models:
        raise RequestError(f"--models names no model; leave it out for {', '.join(PAPER_MODELS)}")
    from kvtune.models import locate
    from kvtune.models.loading import resolve_device

    resolve_device(request.device)
    located: dict[ModelFolder, tuple[str, str, str]] = {}
    for model in request.models:
        _, source, name = locate(model)
        folder = ModelFolder(request.out.expanduser() / plain_name(name))
        if folder in located:
            raise RequestError(
                f"--models {located[folder][0]} and {model} would both be kept in {folder.path}; run one of them with "
                "another --out"
            )
        located[folder] = model, DEMO if name == DEMO else source, name
    data: dict[bool, Images] = {}
    return [_plan(request, *place, folder, data) for folder, place in located.items()]


def _plan(request: Request, model: str, source: str, name: str, folder: ModelFolder, data: dict[bool, Images]) -> _Plan:
    from kvtune.models import get_family
    from kvtune.models.at_hand import at_hand

    demo = name == DEMO
    reporting = reporting_subset(demo)
    count = check_count(request.images, reporting)
    begun = load_manifest(folder)
    if begun is None and (folder.path / "captions").exists():
        raise RequestError(
            f"{folder.path} has captions but no {folder.manifest.name}; restore it, or give another --out"
        )
    if begun is not None:
        now = {"model": source, "reporting": reporting.sha256}
        _refuse_difference(folder, begun, now | _asked_dtype(request, begun.fingerprint.dtype))
        preset = published_preset(get_family(begun.family))
        if _is_complete(request.table, folder, begun, reporting, count):
            return _Plan(request, model, name, source, preset, folder, begun, reporting, count, None)
    preset = published_preset(at_hand(model).family)
    if demo not in data:
        coco = request.coco
        if demo and coco is None:
            from kvtune.demo import demo_coco

            coco = demo_coco()
        data[demo] = find_images(coco, reporting, count)
    _same_tune_images(folder, begun, data[demo].tune)
    return _Plan(request, model, name, source, preset, folder, begun, reporting, count, data[demo])


def _refuse_difference(folder: ModelFolder, begun: Manifest, now: Mapping[str, Any]) -> None:
    before = begun.fingerprint.model_dump(mode="json", include=set(now))
    if (found := first_difference(before, dict(now))) is not None:
        raise RequestError(f"reproduction {folder.path} was begun with {found}; give another --out folder")


def _asked_dtype(request: Request, begun: str) -> dict[str, str]:
    """What the request says of the dtype, as a fingerprint has it; empty where it leaves it to what was begun."""
    bits = "-4bit" if request.load_in_4bit else "-8bit" if request.load_in_8bit else ""
    if request.dtype == "auto" and not bits:
        return {}
    return {"dtype": (begun.partition("-")[0] if request.dtype == "auto" else request.dtype) + bits}


def _same_tune_images(folder: ModelFolder, begun: Manifest | None, tune: Subset) -> None:
    """Refuse tune images of another draw: those of a smaller one have to be the first of a larger one."""
    if begun is None:
        return
    before = begun.tune["image_ids"]
    shared = min(len(before), len(tune.image_ids))
    if list(tune.image_ids[:shared]) != before[:shared]:
        raise RequestError(
            f"reproduction {folder.path} was begun with other tune images than {tune.name} of this COCO folder; "
            "name the one it was begun with, or another --out folder"
        )


def _is_complete(table: Table, folder: ModelFolder, begun: Manifest, reporting: Subset, count: int) -> bool:
    """Whether every caption of a table is there, so that neither weights nor images are needed."""
    image_ids, tune_ids = list(reporting.image_ids[:count]), begun.tune["image_ids"][:count]
    if len(tune_ids) < count or not _has_truth(folder, [*image_ids, *tune_ids]):
        return False
    if not all(_has_all(folder.tune_captions(factor), tune_ids) for factor in LAMBDAS):
        return False
    scoring = _scoring(folder, [*image_ids, *tune_ids])
    chosen = _sweep(folder, scoring, tune_ids, begun.tune).chosen
    return all(_has_all(folder.captions(name, chosen), image_ids) for name in TABLES[table])


def _has_truth(folder: ModelFolder, image_ids: Sequence[int]) -> bool:
    """Whether it is known what is in these images."""
    return folder.ground_truth.exists() and load_ground_truth(folder.ground_truth).keys() >= set(image_ids)


def _has_all(path: Path, image_ids: Sequence[int]) -> bool:
    return read_captions(path).keys() >= set(image_ids)


def _reproduce(plan: _Plan, on_progress: Callable[[int, int], None]) -> ModelResult:
    """Write what is missing and score all of it. The caller holds the lock."""
    engine = _Engine(plan)
    if plan.images is not None:
        _begin(plan, engine)
    manifest = load_manifest(plan.folder)
    assert manifest is not None
    names, tune_ids = TABLES[plan.request.table], manifest.tune["image_ids"][: plan.count]
    published = published_parameters(plan.preset, manifest.layers)
    scoring = _scoring(plan.folder, [*plan.image_ids, *tune_ids])
    total = len(LAMBDAS) * len(tune_ids) + len(names) * plan.count

    def caption(settings: Mapping[Number, Setting], image_ids: Sequence[int], prompt: str, before: int) -> None:
        caption_files(
            image_ids,
            settings,
            METHOD,
            lambda: engine.prepare(prompt, image_ids),
            lambda done, _: on_progress(before + done, total),
            known={*manifest.tune["image_ids"], *plan.reporting.image_ids},
        )

    factors: dict[Number, Setting] = {
        index: Setting(constant_parameters(published, factor), plan.folder.tune_captions(factor))
        for index, factor in enumerate(LAMBDAS)
    }
    caption(factors, tune_ids, plan.preset.generation.prompt, 0)
    sweep = _sweep(plan.folder, scoring, tune_ids, manifest.tune)
    done = len(LAMBDAS) * len(tune_ids)
    settings = {
        name: Setting(parameters_of(name, published, sweep.chosen), plan.folder.captions(name, sweep.chosen))
        for name in names
    }
    # The baseline's number is None, so that its failure is known as the model's own.
    numbered: dict[Number, Setting] = {
        None if name == "baseline" else index: setting
        for index, (name, setting) in enumerate(settings.items())
        if name != "opera"
    }
    caption(numbered, plan.image_ids, plan.preset.generation.prompt, done)
    if "opera" in settings:
        caption({None: settings["opera"]}, plan.image_ids, _opera_prompt(), done + len(numbered) * plan.count)
    return _result(plan, manifest, scoring, sweep, settings)


class _Engine:
    """The model, loaded when the first missing caption asks for it."""

    def __init__(self, plan: _Plan) -> None:
        self._plan = plan

    @cached_property
    def vlm(self) -> "VisionLanguageModel":
        """The model; the very one that the captions so far are of."""
        from kvtune.models import load_model

        plan, begun = self._plan, self._plan.begun
        dtype, revision = plan.request.dtype, None
        if begun is not None:
            dtype, revision = begun.fingerprint.dtype, begun.fingerprint.revision
        quantization = plan.request.load_in_4bit, plan.request.load_in_8bit
        vlm = load_model(plan.model, plan.request.device, dtype, revision, *quantization)
        if begun is not None:
            _refuse_difference(plan.folder, begun, _fingerprint(plan, vlm).model_dump(mode="json"))
        return vlm

    def prepare(self, prompt: str, image_ids: Sequence[int]) -> tuple[CaptionWriter, list[Image]]:
        """A captioner for a question, and the images."""
        from kvtune.captioning import Captioner

        assert self._plan.images is not None
        images = self._plan.images.of(image_ids)
        lanes = self._plan.request.lanes
        limit = self._plan.preset.generation.max_new_tokens
        return Captioner(self.vlm, prompt, limit, "auto" if lanes == "auto" else int(lanes)), images


def _begin(plan: _Plan, engine: _Engine) -> None:
    """Write down what the captions are of, before the first of them."""
    images = plan.images
    assert images is not None
    begun, tune = plan.begun, images.tune.model_dump(mode="json")
    if begun is not None and len(begun.tune["image_ids"]) > len(tune["image_ids"]):
        tune = begun.tune
    if not _has_truth(plan.folder, images.image_ids):
        save_ground_truth(images.ground_truth(), plan.folder.ground_truth)
    vlm = engine.vlm
    Manifest(
        format=FORMAT,
        created=datetime.now(UTC).isoformat(timespec="seconds") if begun is None else begun.created,
        fingerprint=_fingerprint(plan, vlm),
        family=vlm.family.name,
        layers=vlm.n_layers,
        tune=tune,
        coco=str(images.folder.root.absolute()),
        versions=versions(),
        device=str(vlm.device),
        lanes=plan.request.lanes,
    ).save(plan.folder)


def _fingerprint(plan: _Plan, vlm: "VisionLanguageModel") -> Fingerprint:
    return Fingerprint(
        model=plan.source,
        revision=vlm.revision,
        dtype=vlm.dtype_name,
        prompt=plan.preset.generation.prompt,
        max_new_tokens=plan.preset.generation.max_new_tokens,
        reporting=plan.reporting.sha256,
    )


def _scoring(folder: ModelFolder, image_ids: Sequence[int]) -> Scoring:
    """The scorer for these images; the file may hold more, of a run with more images."""
    truth = load_ground_truth(folder.ground_truth)
    return Scoring({image_id: truth[image_id] for image_id in image_ids})


def _sweep(folder: ModelFolder, scoring: Scoring, tune_ids: Sequence[int], tune: Mapping[str, Any]) -> Sweep:
    """The constant factors as they did on the tune images, which begin ``tune``, and the one that is chosen."""
    captions = {factor: captions_of(folder.tune_captions(factor), tune_ids) for factor in LAMBDAS}
    bootstrap = _bootstrap(scoring, list(captions.values()))
    metrics = {factor: scoring.score(lines) for factor, lines in captions.items()}
    return Sweep(
        chosen=choose_factor(metrics),
        subset={
            "name": f"{tune['source']}-{len(tune_ids)}-seed{tune['seed']}",
            "sha256": ids_sha256(tune_ids),
            "images": len(tune_ids),
        },
        points=[
            SweepPoint(factor=factor, metrics=metrics[factor], intervals=bootstrap.intervals(index))
            for index, factor in enumerate(LAMBDAS)
        ],
    )


def _result(
    plan: _Plan, manifest: Manifest, scoring: Scoring, sweep: Sweep, settings: Mapping[SettingName, Setting]
) -> ModelResult:
    captions = {name: captions_of(setting.file, plan.image_ids) for name, setting in settings.items()}
    bootstrap = _bootstrap(scoring, list(captions.values()))
    place = {name: index for index, name in enumerate(captions)}
    # OPERA's question is no setting to compare with the baseline: it stands for another baseline.
    numbers = {None if name == "baseline" else index: index for name, index in place.items() if name != "opera"}
    differences = differences_to_baseline(bootstrap, numbers)
    begun = manifest.fingerprint
    return ModelResult(
        table=plan.request.table,
        model=plan.name,
        id=begun.model,
        revision=begun.revision,
        family=manifest.family,
        layers=manifest.layers,
        dtype=begun.dtype,
        paper_model=manifest.family in PAPER_MODELS and manifest.layers == plan.preset.model.layers,
        max_new_tokens=begun.max_new_tokens,
        subset={"name": plan.reporting.name, "sha256": ids_sha256(plan.image_ids), "images": plan.count},
        whole=plan.count == len(plan.reporting.image_ids),
        scoring=scoring.identity,
        statistics={"confidence": CONFIDENCE, "resamples": RESAMPLES, "seed": SEED, "adjustment": "holm"},
        constant=sweep,
        settings=[
            SettingResult(
                name=name,
                prompt=_opera_prompt() if name == "opera" else begun.prompt,
                params=setting.params or {},
                result=Result(
                    metrics=scoring.score(captions[name]),
                    intervals=bootstrap.intervals(place[name]),
                    differences=entries(differences.get(place[name], {})),
                ),
            )
            for name, setting in settings.items()
        ],
    )


def _bootstrap(scoring: Scoring, captions: Sequence[Sequence[Mapping[str, Any]]]) -> Bootstrap:
    outcomes = Outcomes(None, scoring)
    return Bootstrap(np.stack([outcomes.of(lines).counts for lines in captions]))


def _opera_prompt() -> str:
    from kvtune.models.base import OPERA_PROMPT

    return OPERA_PROMPT


def _free_memory() -> None:
    """Give the last model's memory back before the next one is loaded."""
    gc.collect()
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        sys.modules["torch"].cuda.empty_cache()
