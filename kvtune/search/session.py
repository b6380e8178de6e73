"""``kvtune search``: from what was asked on the command line to a study that is searched."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

from kvtune.analysis.summarize import summarize
from kvtune.analysis.summary import StudySummary
from kvtune.coco import Subset
from kvtune.errors import KvtuneError, RequestError, together
from kvtune.files import check_path
from kvtune.models.published import MODELS
from kvtune.search.begin import fingerprint_of, manifest_of, space_of
from kvtune.search.enqueue import enqueue
from kvtune.search.loop import Search
from kvtune.search.published_settings import tell_of
from kvtune.search.search_options import SearchOptions, check_options, known_fingerprint
from kvtune.search.view import Stage, View
from kvtune.search.warm_start import other_front, start_from
from kvtune.spaces import load_space
from kvtune.study import search_defaults
from kvtune.study.deadline import Deadline, TimeIsUp
from kvtune.study.fingerprint import model_in_fingerprint, refuse_difference
from kvtune.study.lock import locked
from kvtune.study.manifest import Manifest, load_manifest
from kvtune.study.scoring import Scoring
from kvtune.study.shared_baseline import take_baseline
from kvtune.study.storage_url import check_storage
from kvtune.study.streams import Captioning
from kvtune.study.study_folder import StudyFolder, find_study
from kvtune.study.subsets import DEMO, Data, coco_of, find_data
from kvtune.study.together import alone
from kvtune.study.trials import Ledger

if TYPE_CHECKING:
    from kvtune.captioning import AnyCaptioner


def search(options: SearchOptions, view: View, deadline: Deadline | None = None) -> StudySummary:
    """Run a study until it holds ``options.trials`` finished trials; begin it, or go on where it stopped.

    Parameters
    ----------
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
    options: SearchOptions,
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
        with deadline.enforced(), view.making_ready() as stage:
            stage("loading PyTorch", 0, 0)
            from kvtune.captioning import open_captioner

            begun = None
            if folder.exists():
                stack.enter_context(locked(folder.path, begins=True))
                begun = load_manifest(folder)
                refuse_difference(folder, begun.fingerprint, known_fingerprint(options))
                _refuse_other_start(options, folder, begun)
            other = None
            if options.start_from is not None and begun is None:
                other = other_front(options.start_from, options.studies_dir, options.method)
            if options.storage is not None:
                check_storage(options.storage, folder.name, None if begun is None else begun.id)
            revision, data = _revision_and_data(options, folder, begun, stage)
            if data.note:
                view.note(data.note)
            given_space = None if options.space is None else load_space(options.space)

            if captioner is None:
                stage(f"loading {options.model.name}", 0, 0)
                model = replace(options.model, revision=revision)
                captioner = open_captioner(model, options.prompt, options.max_new_tokens, view.note)
            vlm = captioner.vlm
            space = space_of(options, given_space, begun, vlm)
            for method in space.samples():
                captioner.check(method)
            fingerprint = fingerprint_of(options, vlm, data, space)
            if begun is not None:
                refuse_difference(folder, begun.fingerprint, fingerprint.model_dump(mode="json"))
            tune_images = data.check(lambda done, total: stage("images checked", done, total), view.note)
            truth = data.ground_truth()
            scoring = Scoring(truth)

            if begun is None:
                stack.enter_context(locked(folder.path, begins=True))
                _refuse_leftovers(folder)
            manifest = manifest_of(options, begun, fingerprint, vlm, data, scoring)
            if begun is None:
                tell_of(manifest.published, view)
            if other is not None:
                manifest = _with_start(manifest, *other, view)
            manifest = _with_enqueued(manifest, folder, options.enqueue)
        manifest.save(folder.manifest)
        if baseline_of is not None and baseline_of.exists():
            take_baseline(folder, manifest, baseline_of, load_manifest(baseline_of))
        view.note(f"study {folder.path} {'begins' if begun is None else 'goes on'}")
        search = Search(folder, manifest, captioner, tune_images, scoring, view, options.storage, deadline, truth)
        yield from search.steps(options.trials)


def _revision_and_data(
    options: SearchOptions, folder: StudyFolder, begun: Manifest | None, stage: Stage
) -> tuple[str | None, Data]:
    """The revision to load, and the images; for a new study, all that is missing of both is said at once."""

    def data() -> Data:
        return _data(options, folder, begun, lambda done, total: stage("scenes rendered", done, total))

    try:
        return _revision(options, folder, begun), data()
    except RequestError as error:
        if begun is not None or not (options.model.name in MODELS or "/" in options.model.name):
            raise
        from kvtune.models.availability import at_hand

        raise together(error, lambda: at_hand(options.model.name), data) from None


def _data(
    options: SearchOptions, folder: StudyFolder, begun: Manifest | None, on_scene: Callable[[int, int], None]
) -> Data:
    """The images; the demo brings its own scenes, and a study that was begun keeps its own."""
    name = options.model.name
    default = search_defaults.DEMO_IMAGES if name == DEMO else search_defaults.IMAGES
    coco = coco_of(name, options.coco, on_scene)
    data = find_data(coco, options.subset, options.images, options.holdout_images, options.seed, default)
    if begun is not None:
        kept = begun.holdout
        if options.holdout_images not in (None, len(kept.image_ids)):
            raise RequestError(
                f"give --holdout-images {len(kept.image_ids)}, or another --study name: study {folder.name} was begun "
                f"with {len(kept.image_ids)} held-out images, not {options.holdout_images}"
            )
        subsets = _in_words(begun.tune), _in_words(data.tune)
        refuse_difference(folder, begun.fingerprint, {"subset": data.tune.sha256}, {"subset": subsets})
        data = replace(data, holdout=kept)
    return data


def _revision(options: SearchOptions, folder: StudyFolder, begun: Manifest | None) -> str | None:
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


def _in_words(subset: Subset) -> str:
    seed = "" if subset.seed is None else f", seed {subset.seed}"
    return f"{len(subset.image_ids)} images of {subset.source} ({subset.name}{seed})"


def _with_start(manifest: Manifest, other: Manifest, found: StudySummary, view: View) -> Manifest:
    """The manifest with the front of another study to begin with."""
    published = [each.parameters for each in manifest.published]
    start, notes = start_from(other, found, manifest.fingerprint.space, manifest.layers, published)
    for note in notes:
        view.note(note)
    return manifest.model_copy(update={"start": start})


def _with_enqueued(manifest: Manifest, folder: StudyFolder, texts: Sequence[str]) -> Manifest:
    """The manifest with the settings that ``--enqueue`` names to be tried next."""
    start = [] if manifest.start is None else manifest.start.points
    given = sum(each.enqueued for each in manifest.published) + len(start)
    trials, space = Ledger(folder.ledger).trials, manifest.fingerprint.space
    found = enqueue(texts, space, manifest.enqueued, trials, given)
    return manifest.model_copy(update={"enqueued": found})


def _refuse_other_start(options: SearchOptions, folder: StudyFolder, begun: Manifest) -> None:
    """Refuse a ``--from`` that the study was not begun with; what it was begun with is in its manifest."""
    before = None if begun.start is None else begun.start.study
    if options.start_from is None or check_path(options.start_from).name == before:
        return
    find_study(options.start_from, options.studies_dir)  # a name that is wrong is the first thing to say
    cure = "leave --from out" if before is None else f"give --from {before}, or leave it out"
    raise RequestError(
        f"{cure}, or give another --study name: study {folder.name} was begun "
        f"{'without --from' if before is None else f'with --from {before}'}, and its first trials are fixed"
    )


def _refuse_leftovers(folder: StudyFolder) -> None:
    if folder.exists():
        raise RequestError(
            f"study {folder.name} was just begun by another process; wait for it, or name another --study"
        )
    if folder.ledger.exists() or folder.captions.exists():
        raise RequestError(f"{folder.path} has trials but no study.json; restore it, or name another --study")
