"""What the commands do, from Python: a study searched, loaded and chosen from; images captioned; captions scored."""

import dataclasses
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from kvtune.analysis.summary import StudySummary
from kvtune.errors import RequestError
from kvtune.files import check_path
from kvtune.study.study_folder import StudyFolder

if TYPE_CHECKING:
    import pandas as pd
    from PIL.Image import Image

    from kvtune.apply.with_preset import WithPreset
    from kvtune.captioning.request import FinishReason
    from kvtune.presets import Preset

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class Study:
    """A study on disk, as it was when it was read.

    Attributes
    ----------
    folder
        Where it is.
    summary
        What is known of its trials, with intervals and differences to the baseline.
    """

    folder: Path
    summary: StudySummary

    def __repr__(self) -> str:
        from kvtune.report import facts

        return f"Study({str(self.folder)!r}: {facts.subject(self.summary)}; {facts.progress(self.summary)})"

    @property
    def trials(self) -> "pd.DataFrame":
        """A row for the baseline and each trial; columns as in :func:`kvtune.report.data.frames.trials_frame`."""
        from kvtune.report.data.frames import trials_frame

        return trials_frame(self.summary)

    @property
    def front(self) -> "pd.DataFrame":
        """The rows of the front, by rising CHAIR_S."""
        trials = self.trials
        return trials[trials["front"].astype(bool)].sort_values("chair_s", ignore_index=True)

    def document(self) -> dict[str, Any]:
        """What ``kvtune pareto --json`` prints, but for overlays."""
        from kvtune.analysis.selection import choose
        from kvtune.report.data.document import study_document

        return study_document(self.summary, choose(self.summary))

    def preset(self, select: str = "keep-f1", on: Literal["tune", "holdout"] = "tune") -> "Preset":
        """The preset that ``kvtune export --select`` takes, not saved yet.

        Raises
        ------
        RequestError
            If there is no such rule or trial.
        KvtuneError
            If the rule finds no trial.
        """
        from kvtune.analysis.export import export

        return export(StudyFolder(self.folder), select, on)[0]


def load_study(path: str | Path) -> Study:
    """Read a study.

    Parameters
    ----------
    path
        Its folder, or its name in ``studies/``.

    Raises
    ------
    RequestError
        If there is none, or a file of it cannot be read.
    """
    from kvtune.analysis.summarize import summarize
    from kvtune.study.study_folder import find_study

    folder = find_study(path)
    return Study(folder.path, summarize(folder))


def search(model: str, *, timeout: str | None = None, progress: bool = False, **options: Any) -> Study:
    """Search a method's parameters, or go on with a study, as ``kvtune search`` does.

    Parameters
    ----------
    model
        A short name, a folder or a Hub id.
    timeout
        ``2h``, ``90m`` or ``45s``; the same call goes on.
    progress
        Whether to show on stderr what the command shows.
    **options
        The command's others, by the names of :class:`kvtune.search.search_options.SearchOptions`:
        ``method="kvsmooth"``, ``trials=50``, ``study``, ``studies_dir``, ``coco``, ``images``, ``seed``, ...; and by
        those of :class:`kvtune.models.options.ModelOptions` and :class:`~kvtune.models.options.EngineOptions`:
        ``device="auto"``, ``dtype="auto"``, ``revision``, ``load_in_4bit``, ``lanes="auto"``, ``workers``, ...

    Raises
    ------
    RequestError
        If something asked for is wrong or missing; nothing long was done.
    KvtuneError
        If it fails midway; the same call goes on from there.
    """
    from rich.console import Console

    from kvtune.models.options import EngineOptions, ModelOptions
    from kvtune.report.terminal.live import view_for
    from kvtune.search.search_options import SearchOptions
    from kvtune.search.session import search as run
    from kvtune.search.view import View
    from kvtune.study.deadline import Deadline, parse_duration

    kinds = (SearchOptions, ModelOptions, EngineOptions)
    of_search, of_weights, of_engine = ([field.name for field in dataclasses.fields(kind)] for kind in kinds)
    taken = {"model", "name", "engine", "random_weights"}
    known = [name for name in (*of_search, *of_weights, *of_engine) if name not in taken]
    unknown = [name for name in options if name not in known]
    if unknown:
        raise RequestError(f"search has no option {unknown[0]!r}; it has {', '.join(known)}")
    for name in ("studies_dir", "coco", "space"):
        if options.get(name) is not None:
            options[name] = check_path(options[name])
    options["lanes"] = str(options.get("lanes", "auto"))
    weights, engine = ({name: options.pop(name) for name in of if name in options} for of in (of_weights, of_engine))
    asked = SearchOptions(model=ModelOptions(model, engine=EngineOptions(**engine), **weights), **options)
    deadline = Deadline(None if timeout is None else parse_duration(str(timeout)))
    summary = run(asked, view_for(Console(stderr=True)) if progress else View(), deadline)
    return Study(asked.studies_dir / summary.study, summary)


@dataclasses.dataclass(frozen=True)
class ImageCaption:
    """A caption and its image.

    Attributes
    ----------
    image
        As it was given: a path or an image.
    token_ids
        What the model wrote, without the token that ended it.
    finish_reason
        ``eos``: end of text; ``stop``: the family's stop sequence; ``length``: the limit was hit.
    """

    image: "str | Path | Image"
    text: str
    token_ids: tuple[int, ...]
    finish_reason: "FinishReason"


def caption(
    images: "str | Path | Iterable[str | Path | Image]",
    *,
    model: str,
    preset: "str | Path | Preset | None" = None,
    prompt: str | None = None,
    max_new_tokens: int | None = None,
    skip_broken: bool = False,
    device: str = "auto",
    dtype: str = "auto",
    revision: str | None = None,
    load_in_4bit: bool = False,
    load_in_8bit: bool = False,
    lanes: str = "auto",
    cuda_graphs: bool = True,
    gpus_per_worker: int = 1,
) -> Iterator[ImageCaption]:
    """Caption any number of images with a preset: ``for each in kvtune.caption(paths, model="llava-1.5"): each.text``.

    The model is loaded at once, images as their turn comes, and none is kept. ``kvtune caption --out`` does the same
    into a file, and goes on after an interruption.

    Parameters
    ----------
    images
        Paths or Pillow images, pulled from as captions are written, up to some thousand ahead; or one path, of an
        image, a folder or a list, as the command takes it.
    model
        A short name, a folder or a Hub id.
    preset
        A shipped name, a file or a preset; the model's published one when None; ``"none"`` for no method.
    prompt, max_new_tokens
        The preset's when None.
    skip_broken
        Leave out files that cannot be read, with a warning in the log, instead of ending there.
    device, dtype, revision, load_in_4bit, load_in_8bit, lanes, cuda_graphs, gpus_per_worker
        As the command's options.

    Returns
    -------
    Iterator
        A caption an image, as they end, in no fixed order.

    Raises
    ------
    RequestError
        If something asked for is wrong or missing, at once; or while iterating, if an image cannot be read or taken.
    """
    from kvtune.apply.image_list import list_images
    from kvtune.apply.with_preset import choose_preset, open_with_preset
    from kvtune.models.options import EngineOptions, ModelOptions

    if isinstance(images, str | Path):
        images = [path for _, path in list_images([check_path(images)])]
    choice = choose_preset(preset)
    engine = EngineOptions(device, str(lanes), cuda_graphs, gpus_per_worker=gpus_per_worker)
    options = ModelOptions(model, dtype, revision, load_in_4bit, load_in_8bit, engine=engine)
    return _captions(images, open_with_preset(options, choice, prompt, max_new_tokens, keep_images=False), skip_broken)


def _captions(images: "Iterable[str | Path | Image]", work: "WithPreset", skip_broken: bool) -> Iterator[ImageCaption]:
    from kvtune.captioning import CaptionRequest
    from kvtune.coco.images import problem_with

    given: dict[int, str | Path | Image] = {}

    def requests() -> Iterator[CaptionRequest]:
        for number, image in enumerate(images):
            opened = check_path(image) if isinstance(image, str | Path) else image
            if skip_broken and isinstance(opened, Path) and (why := problem_with(opened)):
                logger.warning("skipped %s: %s", opened, why)
                continue
            given[number] = image
            yield CaptionRequest(number, opened, work.method)

    for each in work.captioner.run(requests()):
        yield ImageCaption(given.pop(each.image_id), each.text, each.token_ids, each.finish_reason)


def score(
    captions: str | Path | Sequence[Mapping[str, Any]],
    ground_truth: str | Path | Mapping[int, Collection[str]] | Mapping[str, Collection[str]],
    *,
    complete_sentences: bool = False,
    as_written: bool = False,
    answer_after: str | None = None,
) -> dict[str, Any]:
    """Score captions with CHAIR, as ``kvtune score`` does.

    Parameters
    ----------
    captions
        A file that the command reads, or records of ``image_id`` and ``caption``.
    ground_truth
        Objects of each captioned image, by its id or the digits of it, or a file of them (``kvtune data
        ground-truth``).
    complete_sentences, as_written, answer_after
        As the command's options.

    Returns
    -------
    dict
        What ``kvtune score --json`` prints: the rates, ``intervals`` (95 %) and ``notes``.

    Raises
    ------
    RequestError
        If a file cannot be read, an image has no ground truth, or a name is no COCO category.
    """
    from kvtune.analysis.score import score_captions
    from kvtune.chair import load_ground_truth, read_captions_file
    from kvtune.chair.captions import caption_of
    from kvtune.chair.cleaning import Cleaning

    if isinstance(captions, str | Path):
        records = read_captions_file(check_path(captions)).captions
    else:
        given = (caption_of(record, place) for place, record in enumerate(captions))
        records = [{"image_id": image_id, "caption": text} for image_id, text in given]
    if not records:
        raise RequestError("there are no captions to score")
    truth = load_ground_truth(check_path(ground_truth)) if isinstance(ground_truth, str | Path) else ground_truth
    return score_captions(records, truth, Cleaning(as_written, complete_sentences, answer_after)).to_dict()
