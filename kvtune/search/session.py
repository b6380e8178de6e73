"""``kvtune search``: from what was asked on the command line to a study that is searched."""

import os
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kvtune.analysis.summarize import summarize
from kvtune.analysis.summary import StudySummary
from kvtune.coco import Subset
from kvtune.errors import KvtuneError, RequestError, check_count, together
from kvtune.files import check_path
from kvtune.methods import Alternatives, get_method
from kvtune.models.options import ModelOptions, parse_lanes
from kvtune.models.published import MODELS
from kvtune.search.enqueue import enqueue
from kvtune.search.loop import Search
from kvtune.search.samplers import check_sampler
from kvtune.search.view import View
from kvtune.search.warm_start import other_front, start_from
from kvtune.spaces import SearchSpace, load_space, space_for
from kvtune.statistics.confidence import RACE_CONFIDENCE
from kvtune.statistics.racing import Race
from kvtune.study.constraints import check_floor
from kvtune.study.deadline import Deadline, TimeIsUp
from kvtune.study.fingerprint import Fingerprint, model_in_fingerprint, refuse_difference
from kvtune.study.lock import locked
from kvtune.study.manifest import FORMAT, Manifest, Published, load_manifest, versions
from kvtune.study.sampler_names import SAMPLERS, SamplerName
from kvtune.study.scoring import Scoring
from kvtune.study.shared_baseline import take_baseline
from kvtune.study.storage_url import check_storage
from kvtune.study.streams import Captioning, alone
from kvtune.study.study_folder import DEFAULT_STUDIES, StudyFolder, check_name, default_name, find_study
from kvtune.study.subsets import DEMO, DEMO_IMAGES, IMAGES, Data, coco_of, find_data
from kvtune.study.trials import Ledger
from kvtune.text import not_there

if TYPE_CHECKING:
    from kvtune.captioning import AnyCaptioner
    from kvtune.models.model_facts import AnyModel

DEFAULT_PARALLEL_TRIALS = 8
"""Trials in a round: enough to fill a batch that shares each image's prefill, few enough that a search of 50 trials
looks at what it has seen six times."""


@dataclass(frozen=True)
class Options:
    """What ``kvtune search`` was asked for; None is the default of the model, family or data."""

    model: ModelOptions
    method: str = "kvsmooth"
    space: Path | None = None
    trials: int = 50
    study: str | None = None
    studies_dir: Path = DEFAULT_STUDIES
    coco: Path | None = None
    subset: str | None = None
    images: int | None = None
    holdout_images: int | None = None
    prompt: str | None = None
    max_new_tokens: int = 512
    depth: str | None = None
    sampler: SamplerName = "tpe"
    parallel_trials: int = DEFAULT_PARALLEL_TRIALS
    seed: int = 0
    storage: str | None = None
    race_confidence: float | None = RACE_CONFIDENCE
    min_f1: str | None = None
    min_words: str | None = None
    start_from: str | None = None
    enqueue: Sequence[str] = ()


def search(options: Options, view: View, deadline: Deadline | None = None) -> StudySummary:
    """Run a study until it holds ``options.trials`` finished trials; begin it, or go on where it stopped.

    Parameters
    ----------
    view
        Shows what happens.
    deadline
        When to end, however far it is; the same call goes on.

    Raises
    ------
    RequestError
        If something asked for is wrong or missing, or would mix two fingerprints in one study; nothing long was done.
    KvtuneError
        If it fails midway, or the deadline comes before the first caption; the same call goes on from there.
    """
    folder = check_options(options)
    try:
        alone(searching(options, folder, view, deadline))
    except TimeIsUp:
        raise KvtuneError(
            "the time of --timeout was over before the first caption, for making ready takes longer; give it more"
        ) from None
    return summarize(folder)


def searching(
    options: Options,
    folder: StudyFolder,
    view: View,
    deadline: Deadline | None = None,
    captioner: "AnyCaptioner | None" = None,
    baseline_of: StudyFolder | None = None,
) -> Captioning[None]:
    """A search as a work of :mod:`kvtune.study.streams`, which holds the study's lock until it is closed.

    Make ready, which the deadline cuts short wherever it is, then search, which keeps what is whole by then.

    Parameters
    ----------
    options, view, deadline
        As for :func:`search`.
    folder
        From :func:`check_options`.
    captioner
        One that was opened for the model, prompt and tokens of ``options``; None opens one.
    baseline_of
        A study of the same model and images whose baseline captions are taken over.
    """
    deadline = deadline or Deadline()
    with ExitStack() as stack:
        making_ready = stack.enter_context(ExitStack())
        making_ready.enter_context(deadline.enforced())
        stage = making_ready.enter_context(view.making_ready())
        from kvtune.captioning import open_captioner

        begun = None
        if folder.exists():
            stack.enter_context(locked(folder.path))
            begun = load_manifest(folder)
            refuse_difference(folder, begun.fingerprint, _known_fingerprint(options))
            _refuse_other_start(options, folder, begun)
        other = None
        if options.start_from is not None and begun is None:
            other = other_front(options.start_from, options.studies_dir.expanduser(), options.method)
        if options.storage is not None:
            check_storage(options.storage, folder.name, begun.id if begun is not None else None)
        try:
            revision = _revision(options, folder, begun)
            data = _data(options, begun, lambda done, total: stage("scenes rendered", done, total))
        except RequestError as error:
            if begun is not None or not (options.model.name in MODELS or "/" in options.model.name):
                raise
            raise _with_all_that_is_missing(error, options) from None
        if data.note:
            view.note(data.note)
        given_space = None if options.space is None else load_space(options.space)

        if captioner is None:
            stage(f"loading {options.model.name}", 0, 0)
            model = replace(options.model, revision=revision)
            captioner = open_captioner(model, options.prompt, options.max_new_tokens, view.note)
        vlm = captioner.vlm
        space = _space(options, given_space, begun, vlm)
        for method in space.samples():
            captioner.check(method)
        fingerprint = _fingerprint(options, vlm, data, space)
        if begun is not None:
            subsets = _images(begun.tune), _images(data.tune)
            refuse_difference(folder, begun.fingerprint, fingerprint.model_dump(mode="json"), {"subset": subsets})
        tune_images = data.check(lambda done, total: stage("images checked", done, total), view.note)
        scoring = Scoring(data.ground_truth())

        if begun is None:
            stack.enter_context(locked(folder.path))
            _refuse_leftovers(folder)
        manifest = _manifest(options, begun, fingerprint, vlm, data, scoring)
        for number, published in enumerate(manifest.published if begun is None else ()):
            _tell_of(published, sum(each.enqueued for each in manifest.published[:number]), view)
        if other is not None:
            start, notes = start_from(
                *other, fingerprint.space, vlm.n_layers, [each.parameters for each in manifest.published]
            )
            manifest = manifest.model_copy(update={"start": start})
            for note in notes:
                view.note(note)
        manifest = _with_enqueued(options, folder, manifest)
        making_ready.close()
        manifest.save(folder)
        if baseline_of is not None and baseline_of.exists():
            take_baseline(folder, manifest, baseline_of, load_manifest(baseline_of))
        view.note(f"study {folder.path} {'begins' if begun is None else 'goes on'}")
        truth = data.ground_truth()
        search = Search(folder, manifest, captioner, tune_images, scoring, view, options.storage, deadline, truth)
        yield from search.steps(options.trials)


def check_options(options: Options) -> StudyFolder:
    """Check what can be checked at once; where the study is to be."""
    Alternatives.of(options.method)
    if options.sampler not in SAMPLERS:
        raise RequestError(f"{not_there('sampler', options.sampler, SAMPLERS)}")
    least = {"--trials": options.trials, "--parallel-trials": options.parallel_trials}
    least |= {"--max-new-tokens": options.max_new_tokens}
    for option, value in least.items():
        check_count(option, value)
    if options.subset is not None and options.images is not None:
        raise RequestError("--subset says which images to tune on and --images how many to draw; give one of the two")
    if options.race_confidence is not None and not 0 < options.race_confidence < 1:
        raise RequestError(f"--race-confidence must be between 0 and 1, not {options.race_confidence:g}")
    _floors(options)
    if options.seed < 0:
        raise RequestError(f"--seed must be at least 0, not {options.seed}")
    parse_lanes(options.model.engine.lanes)
    name = check_name(options.study) if options.study is not None else default_name(options.model.name, options.method)
    parent = options.studies_dir.expanduser().absolute()
    existing = next(folder for folder in (parent, *parent.parents) if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise RequestError(f"cannot write studies in {options.studies_dir}; make it writable or name --studies-dir")
    return StudyFolder(options.studies_dir.expanduser() / name)


def _known_fingerprint(options: Options) -> dict[str, Any]:
    """What of the fingerprint is known before data and model are looked at."""
    known: dict[str, Any] = {name: getattr(options, name) for name in ("seed", "sampler", "max_new_tokens")}
    known |= {"method": str(Alternatives.of(options.method)), "parallel_trials": options.parallel_trials}
    known["race_confidence"] = options.race_confidence
    known |= _floors(options)
    if options.prompt is not None:
        known["prompt"] = options.prompt
    return known


def _data(options: Options, begun: Manifest | None, on_scene: Callable[[int, int], None]) -> Data:
    """The images; the demo brings its own scenes, and a study that was begun keeps its held-out images."""
    name = options.model.name
    default = DEMO_IMAGES if name == DEMO else IMAGES
    coco = coco_of(name, options.coco, on_scene)
    data = find_data(coco, options.subset, options.images, options.holdout_images, options.seed, default)
    if begun is not None:
        kept = begun.holdout
        if options.holdout_images not in (None, len(kept.image_ids)):
            raise RequestError(
                f"the study was begun with {len(kept.image_ids)} held-out images, not {options.holdout_images}; "
                f"give --holdout-images {len(kept.image_ids)}, or another --study name"
            )
        data = replace(data, holdout=kept)
    return data


def _with_all_that_is_missing(error: RequestError, options: Options) -> RequestError:
    """The error, and what else is missing of a published model's weights and of the images."""
    from kvtune.models.availability import at_hand

    return together(error, lambda: at_hand(options.model.name), lambda: _data(options, None, lambda done, total: None))


def _revision(options: Options, folder: StudyFolder, begun: Manifest | None) -> str | None:
    """The revision to load: the one asked for, else the one that the study was begun with.

    An unknown name is refused before anything about data is said, another model or commit than the study's before any
    weights are fetched.
    """
    from kvtune.models import commit_of, locate

    _, source, name = locate(options.model.name)
    if begun is None:
        return options.model.revision
    refuse_difference(folder, begun.fingerprint, {"model": model_in_fingerprint(name, source)})
    revision = options.model.revision
    if revision is None:
        return begun.fingerprint.revision
    refuse_difference(folder, begun.fingerprint, {"revision": commit_of(options.model.name, revision)})
    return revision


def _space(options: Options, given: SearchSpace | None, begun: Manifest | None, vlm: "AnyModel") -> SearchSpace:
    """The space: the one that was named, else the study's own, else the one that ships for the model's family."""
    if given is None and begun is not None and begun.layers == vlm.n_layers:
        space = begun.fingerprint.space
    elif given is None:
        space = space_for(options.method, (vlm.name, vlm.family.name), vlm.n_layers).fitted(vlm.n_layers)
    else:
        if given.alternatives != Alternatives.of(options.method):
            raise RequestError(f"{options.space} is a space of {given.alternatives}, not of --method {options.method}")
        try:
            space = given.fitted(vlm.n_layers)
        except RequestError as error:
            raise RequestError(f"search space {options.space}: {error}") from None
    if options.depth is not None:
        held = space.holding("depth", options.depth)
        if held == space and not any("depth" in get_method(name).declared() for name in space.parts):
            raise RequestError(f"--depth is for methods that use depth, as dscr; {options.method} does not")
        space = held
    check_sampler(options.sampler, space)
    return space


def _fingerprint(options: Options, vlm: "AnyModel", data: Data, space: SearchSpace) -> Fingerprint:
    return Fingerprint(
        model=model_in_fingerprint(vlm.name, vlm.model_id),
        revision=vlm.revision,
        prompt=options.prompt if options.prompt is not None else vlm.default_prompt,
        max_new_tokens=options.max_new_tokens,
        subset=data.tune.sha256,
        method=str(space.alternatives),
        dtype=vlm.dtype_name,
        seed=options.seed,
        sampler=options.sampler,
        parallel_trials=options.parallel_trials,
        space=space,
        race_confidence=options.race_confidence,
        **_floors(options),
    )


def _images(subset: Subset) -> str:
    seed = "" if subset.seed is None else f", seed {subset.seed}"
    return f"{len(subset.image_ids)} images of {subset.source} ({subset.name}{seed})"


def _floors(options: Options) -> dict[str, str | None]:
    given = {"min_f1": options.min_f1, "min_words": options.min_words}
    floors = {name: None if text is None else check_floor(str(text)) for name, text in given.items()}
    f1 = floors["min_f1"]
    if f1 is not None and not f1.startswith("baseline") and float(f1) > 100:
        raise RequestError(f"--min-f1 {f1}: F1 is at most 100; write a number (72), baseline, or baseline-2")
    return floors


def _refuse_other_start(options: Options, folder: StudyFolder, begun: Manifest) -> None:
    """Refuse a ``--from`` that the study was not begun with; what it was begun with is in its manifest."""
    if options.start_from is None:
        return
    before = None if begun.start is None else begun.start.study
    if check_path(options.start_from).name != before:
        find_study(
            options.start_from, options.studies_dir.expanduser()
        )  # a name that is wrong is the first thing to say
    if check_path(options.start_from).name != before:
        cure = "leave --from out" if before is None else f"give --from {before}, or leave it out"
        raise RequestError(
            f"{cure}, or give another --study name: study {folder.name} was begun "
            f"{'without --from' if before is None else f'with --from {before}'}, and its first trials are fixed"
        )


def _manifest(
    options: Options,
    begun: Manifest | None,
    fingerprint: Fingerprint,
    vlm: "AnyModel",
    data: Data,
    scoring: Scoring,
) -> Manifest:
    return Manifest(
        format=FORMAT,
        id=uuid.uuid4().hex if begun is None else begun.id,
        created=datetime.now(UTC).isoformat(timespec="seconds") if begun is None else begun.created,
        fingerprint=fingerprint,
        model=vlm.name,
        family=vlm.family.name,
        layers=vlm.n_layers,
        published=published_settings(fingerprint.space, vlm) if begun is None else begun.published,
        tune=data.tune,
        holdout=data.holdout,
        coco=str(data.folder.root.absolute()),
        versions=versions(),
        device=vlm.device_name,
        lanes=options.model.engine.lanes,
        scorer=scoring.version if begun is None else begun.scorer,
        reference_point=None if begun is None else begun.reference_point,
        looks=_looks(fingerprint, data) if begun is None else begun.looks,
        start=None if begun is None else begun.start,
        enqueued=[] if begun is None else begun.enqueued,
    )


def _with_enqueued(options: Options, folder: StudyFolder, manifest: Manifest) -> Manifest:
    start = manifest.start
    given = sum(each.enqueued for each in manifest.published) + (0 if start is None else len(start.points))
    trials, space = Ledger(folder.ledger).trials, manifest.fingerprint.space
    found = enqueue(options.enqueue, space, manifest.enqueued, trials, given)
    return manifest.model_copy(update={"enqueued": found})


def _looks(fingerprint: Fingerprint, data: Data) -> list[int]:
    if fingerprint.race_confidence is None:
        return []
    return list(Race.of(len(data.tune.image_ids), fingerprint.race_confidence).looks)


def published_settings(space: SearchSpace, vlm: "AnyModel") -> list[Published]:
    """The settings published for this very model, one of each alternative at most, to be the first trials where they
    are points of the space."""
    found = []
    for name in space.parts:
        if (published := _published_of(name, vlm)) is not None:
            parameters = space.alternatives.here(name, published.parameters)
            enqueued = space.point(parameters) is not None
            found.append(published.model_copy(update={"parameters": parameters, "enqueued": enqueued}))
    return found


def _published_of(method_name: str, vlm: "AnyModel") -> Published | None:
    """That of the preset that ships, or the one that the method declares."""
    from kvtune.presets import load_preset

    if vlm.published_preset is not None:
        preset = load_preset(vlm.published_preset)
        if preset.method_name == method_name and preset.model.layers == vlm.n_layers:
            return Published(name=preset.name, parameters=preset.method().parameters(), enqueued=False)
    kind = get_method(method_name)
    declared = kind.published_for(vlm.name)
    if declared is None:
        return None
    method = kind.from_parameters(declared.parameters)
    try:
        method.check_layers(vlm.n_layers)  # a folder may have any name
    except RequestError:
        return None
    return Published(name=declared.model, parameters=method.parameters(), enqueued=False, source=declared.source)


def _tell_of(published: Published, number: int, view: View) -> None:
    """Say whether it is trial ``number``, the first one that no published setting before it is."""
    if published.source is None:
        if not published.enqueued:
            view.note(f"the published preset {published.name} is not in the search space and is no trial")
    elif published.enqueued:
        view.note(f"trial {number} is the setting published for {published.name}: {published.source}")
    else:
        view.note(
            f"the setting published for {published.name} ({published.source}) is not in the search space and is no "
            "trial"
        )


def _refuse_leftovers(folder: StudyFolder) -> None:
    if folder.exists():
        raise RequestError(
            f"study {folder.name} was just begun by another process; wait for it, or name another --study"
        )
    if folder.ledger.exists() or folder.captions.exists():
        raise RequestError(f"{folder.path} has trials but no study.json; restore it, or name another --study")
