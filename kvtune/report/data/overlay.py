"""Points of other methods, set beside a study's: numbers a paper reports, or captions scored here."""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from kvtune.analysis.score import score_captions
from kvtune.chair import METRICS, read_captions_file
from kvtune.chair.notes import Note
from kvtune.errors import RequestError
from kvtune.files import check_path
from kvtune.report.data.reported import reported_table
from kvtune.study.manifest import load_manifest
from kvtune.study.study_folder import StudyFolder

PAPER = "paper"
"""The ``--overlay`` that stands for the numbers the KVSmooth paper reports."""


@dataclass(frozen=True)
class OverlayPoint:
    """One result that is not of the study.

    Attributes
    ----------
    label
        What to call it.
    scores
        Rates in percent by name, ``chair_s`` and ``f1`` at least, and ``mean_words`` where it is known.
    reported
        True for numbers copied from a paper, over other images than the study's; False for captions of the study's
        own images scored by the study's own scorer.
    source
        Where it comes from: a paper's table, or the captions file.
    notes
        What makes the captions of a file implausible, and what was cut from them.
    """

    label: str
    scores: Mapping[str, float] = field(repr=False)
    reported: bool
    source: str
    notes: tuple[Note, ...] = ()

    @property
    def x(self) -> float:
        """CHAIR_S in percent."""
        return self.scores["chair_s"]

    @property
    def y(self) -> float:
        """F1 in percent."""
        return self.scores["f1"]

    @property
    def kind(self) -> str:
        """What a legend says about it."""
        return "reported, other images" if self.reported else "captions file, same images"


def paper_points(model: str) -> list[OverlayPoint]:
    """Return what KVSmooth's table 1 reports for a model, or for all of its models where ``model`` is another one.

    Only the rows known to us are there: ``reported.json`` says which are missing.

    Parameters
    ----------
    model
        The study's model by name, path or hub id.
    """
    table = reported_table()
    rows = [row for row in table["points"] if re.search(row["named"], model, re.IGNORECASE)] or table["points"]
    return [
        OverlayPoint(
            row["label"],
            {"chair_s": row["chair_s"], "f1": row["f1"]},
            reported=True,
            source=f"{table['source']}; read in {table['seen'][row['seen']]}",
        )
        for row in rows
    ]


def captions_point(
    path: Path,
    ground_truth: Mapping[int, Collection[str]],
    images: Collection[int],
    image_key: str = "image_id",
    caption_key: str = "caption",
) -> OverlayPoint:
    """Score a captions file of another method on the study's images.

    Captions of further images are left out, so that the rates are over the same images as the study's. Special tokens
    are cut as ``kvtune score`` cuts them.

    Parameters
    ----------
    path
        As ``kvtune score`` takes it.
    ground_truth
        Image id -> categories in the image.
    images
        The study's tune images.
    image_key, caption_key
        See :func:`kvtune.chair.read_captions_file`.

    Raises
    ------
    RequestError
        If the file cannot be read, or does not have exactly one caption for each of the images.
    """
    wanted = set(images)
    file = read_captions_file(path, image_key, caption_key)
    captions = [caption for caption in file.captions if caption["image_id"] in wanted]
    counts = Counter(caption["image_id"] for caption in captions)
    missing = sorted(wanted - counts.keys())
    if missing:
        raise RequestError(
            f"{file.name} covers {len(counts)} of the study's {len(wanted)} tune images (first missing: "
            f"{missing[0]}); caption the others too, a comparison over other images means nothing"
        )
    twice = [image for image, count in counts.items() if count > 1]
    if twice:
        raise RequestError(f"{file.name} has {counts[twice[0]]} captions of image {twice[0]}; keep one an image")
    scored = score_captions(captions, ground_truth, fields=file.fields)
    score = scored.score.to_dict()
    rates = {name: score[name] for name in METRICS}
    return OverlayPoint(path.stem, rates, reported=False, source=str(path), notes=tuple(scored.notes))


def overlay_points(
    name: str, folder: StudyFolder, model: str, image_key: str = "image_id", caption_key: str = "caption"
) -> list[OverlayPoint]:
    """Return what ``--overlay NAME`` stands for: :data:`PAPER`, or a captions file of the study's tune images.

    Parameters
    ----------
    image_key, caption_key
        See :func:`kvtune.chair.read_captions_file`.

    Raises
    ------
    RequestError
        As :func:`captions_point`.
    """
    if name == PAPER:
        return paper_points(model)
    from kvtune.study.scoring import truth_of

    path, manifest = check_path(name), load_manifest(folder)
    truth = truth_of(folder)
    return [captions_point(path, truth, manifest.tune.image_ids, image_key, caption_key)]
