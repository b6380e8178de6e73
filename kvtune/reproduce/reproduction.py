"""Captioning and scoring what the paper's tables compare, model after model."""

import gc
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING

from kvtune.analysis.judge import STATISTICS, judge
from kvtune.chair import save_ground_truth
from kvtune.coco.subset import ids_sha256
from kvtune.errors import RequestError
from kvtune.presets import SubsetInfo
from kvtune.reproduce.constant_factor import factor_settings, factor_sweep, scoring_of
from kvtune.reproduce.documents import (
    FORMAT,
    FactorSweep,
    ModelFolder,
    ModelResult,
    Reproduction,
    ReproductionFingerprint,
    SettingResult,
    load_reproduction,
)
from kvtune.reproduce.paper_settings import (
    PAPER_MODELS,
    SettingName,
    method_of,
    opera_prompt,
    published_parameters,
    rows,
)
from kvtune.reproduce.plan import ModelPlan, Request, has_truth, plans, refuse_difference
from kvtune.study.captioning import OnProgress, Setting, caption_files
from kvtune.study.lock import locked
from kvtune.study.manifest import versions
from kvtune.study.pace import Pace
from kvtune.study.scoring import Scoring
from kvtune.study.streams import CaptionWriter, Number
from kvtune.study.subsets import Image
from kvtune.study.together import alone

if TYPE_CHECKING:
    from kvtune.captioning import AnyCaptioner
    from kvtune.models.model_facts import AnyModel

Show = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]
"""Shows a long step by its name; what it gives takes (done, total)."""

ShowCaptions = Callable[[str], AbstractContextManager[OnProgress]]
"""Shows captions being written, by the name of the step; what it gives takes their pace."""


def reproduce(
    request: Request, show: Show, show_captions: ShowCaptions, note: Callable[[str], None] = lambda text: None
) -> Iterator[tuple[ModelFolder, ModelResult]]:
    """Caption, score and compare what a table of the paper compares; one model after another.

    Captions that were paid for are kept below ``request.out`` and never written twice, whichever table they were
    written for; the same call goes on after an interruption. All models, weights and images are looked for before the
    first caption.

    Parameters
    ----------
    show, show_captions
        Show images being checked, and each model's captions as they come.
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
    checked = plans(request)
    with ExitStack() as stack:
        for plan in checked:
            stack.enter_context(locked(plan.folder.path, "reproduction", begins=True))
        for plan in checked:
            if load_reproduction(plan.folder) != plan.begun:
                raise RequestError(f"{plan.folder.path} was just begun by another process; give the command again")
        for images in {id(plan.images): plan.images for plan in checked if plan.images is not None}.values():
            with show("images checked") as on_progress:
                images.check(on_progress)
        for number, plan in enumerate(checked, 1):
            note(f"{plan.name}: captions are kept in {plan.folder.path}")
            with show_captions(f"{plan.name} ({number} of {len(checked)}), captions") as on_progress:
                result = _reproduce(plan, on_progress)
            _free_memory()
            yield plan.folder, result


def _reproduce(plan: ModelPlan, on_progress: OnProgress) -> ModelResult:
    """Write what is missing and score all of it. The caller holds the lock."""
    engine = _Engine(plan)
    if plan.images is not None:
        _begin(plan, engine)
    manifest = load_reproduction(plan.folder)
    assert manifest is not None
    layers = manifest.layers
    names, tune_ids = rows(plan.request.table, plan.name, layers), manifest.tune.image_ids[: plan.count]
    published = published_parameters(plan.preset, layers)
    scoring = scoring_of(plan.folder, [*plan.image_ids, *tune_ids])
    pace = Pace()

    def caption(settings: Mapping[Number, Setting], image_ids: Sequence[int], prompt: str, later: int) -> None:
        pace.ahead(later * plan.count, later, plan.count)
        alone(
            caption_files(
                image_ids,
                settings,
                lambda: engine.prepare(prompt, image_ids),
                on_progress,
                known={*manifest.tune.image_ids, *plan.reporting.image_ids},
                pace=pace,
            )
        )

    factors = factor_settings(plan.folder, published)
    caption(dict(enumerate(factors.values())), tune_ids, plan.preset.generation.prompt, len(names))
    sweep = factor_sweep(factors, scoring, tune_ids, manifest.tune)
    settings = {
        name: Setting(
            method_of(name, plan.name, layers, published, sweep.chosen), plan.folder.captions(name, sweep.chosen)
        )
        for name in names
    }
    # The baseline's number is None, so that its failure is known as the model's own.
    numbered: dict[Number, Setting] = {
        None if name == "baseline" else index: setting
        for index, (name, setting) in enumerate(settings.items())
        if name != "opera"
    }
    caption(numbered, plan.image_ids, plan.preset.generation.prompt, len(names) - len(numbered))
    if "opera" in settings:
        caption({None: settings["opera"]}, plan.image_ids, opera_prompt(), 0)
    return _result(plan, manifest, scoring, sweep, settings)


class _Engine:
    """The model, loaded when the first missing caption asks for it."""

    def __init__(self, plan: ModelPlan) -> None:
        self._plan = plan

    @cached_property
    def captioner(self) -> "AnyCaptioner":
        """Of the very model that the captions so far are of."""
        from kvtune.captioning import open_captioner

        plan, options = self._plan, self._plan.model
        if plan.begun is not None:
            begun = plan.begun.fingerprint
            options = replace(options, dtype=begun.dtype, revision=begun.revision)
        generation = plan.preset.generation
        captioner = open_captioner(options, generation.prompt, generation.max_new_tokens)
        if plan.begun is not None:
            refuse_difference(plan.folder, plan.begun, _fingerprint(plan, captioner.vlm).model_dump(mode="json"))
        return captioner

    def prepare(self, prompt: str, image_ids: Sequence[int]) -> tuple[CaptionWriter, list[Image]]:
        """A captioner for a question, and the images."""
        assert self._plan.images is not None
        images = self._plan.images.of(image_ids)
        return self.captioner.changed(prompt=prompt), images


def _begin(plan: ModelPlan, engine: _Engine) -> None:
    """Write down what the captions are of, before the first of them."""
    images = plan.images
    assert images is not None
    begun, tune = plan.begun, images.tune
    if begun is not None and len(begun.tune.image_ids) > len(tune.image_ids):
        tune = begun.tune
    vlm = engine.captioner.vlm
    if not has_truth(plan.folder, images.image_ids):
        save_ground_truth(images.ground_truth, plan.folder.ground_truth)
    Reproduction(
        format=FORMAT,
        created=datetime.now(UTC).isoformat(timespec="seconds") if begun is None else begun.created,
        fingerprint=_fingerprint(plan, vlm),
        family=vlm.family.name,
        layers=vlm.n_layers,
        tune=tune,
        coco=str(images.folder.root.absolute()),
        versions=versions(),
        device=vlm.device_name,
        lanes=plan.model.engine.lanes,
    ).save(plan.folder.manifest)


def _fingerprint(plan: ModelPlan, vlm: "AnyModel") -> ReproductionFingerprint:
    return ReproductionFingerprint(
        model=plan.source,
        revision=vlm.revision,
        dtype=vlm.dtype_name,
        prompt=plan.preset.generation.prompt,
        max_new_tokens=plan.preset.generation.max_new_tokens,
        reporting=plan.reporting.sha256,
    )


def _result(
    plan: ModelPlan,
    manifest: Reproduction,
    scoring: Scoring,
    sweep: FactorSweep,
    settings: Mapping[SettingName, Setting],
) -> ModelResult:
    # OPERA's question is no setting to compare with the baseline: it stands for another baseline.
    judged = judge(settings, plan.image_ids, scoring, baseline="baseline", apart={"opera"})
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
        subset=SubsetInfo(name=plan.reporting.name, sha256=ids_sha256(plan.image_ids), images=plan.count),
        whole=plan.count == len(plan.reporting.image_ids),
        scoring=scoring.identity,
        statistics=STATISTICS,
        constant=sweep,
        settings=[
            SettingResult(
                name=name,
                prompt=opera_prompt() if name == "opera" else begun.prompt,
                params={} if setting.method is None else setting.method.parameters(),
                result=judged[name],
            )
            for name, setting in settings.items()
        ],
    )


def _free_memory() -> None:
    """Give the last model's memory back before the next one is loaded."""
    gc.collect()
    if "torch" in sys.modules and sys.modules["torch"].cuda.is_available():
        sys.modules["torch"].cuda.empty_cache()
