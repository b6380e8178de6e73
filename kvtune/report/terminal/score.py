"""CHAIR of a captions file: scores with intervals and what makes them doubtful, in the terminal and as JSON."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from kvtune.chair import METRICS, ChairScore, ChairScorer
from kvtune.chair.cleaning import Cleaning
from kvtune.chair.notes import Note, look_at, look_at_cleaning
from kvtune.report.cells import interval
from kvtune.statistics.bootstrap import Interval, score_intervals


@dataclass(frozen=True)
class Scored:
    """A captions file's scores.

    Attributes
    ----------
    score
        The rates.
    intervals
        95 % intervals of the rates, by name.
    notes
        What makes the captions implausible, and what was done with them.
    images
        How many images they are of.
    details
        See :meth:`kvtune.chair.ChairScorer.details`; empty if not asked for.
    """

    score: ChairScore
    intervals: dict[str, Interval]
    notes: list[Note]
    images: int
    details: list[dict[str, Any]]


def score_captions(
    captions: Sequence[Mapping[str, Any]],
    ground_truth: Mapping[int, Collection[str]],
    cleaning: Cleaning = Cleaning(),  # noqa: B008
    *,
    fields: Sequence[str] = (),
    options: bool = False,
    details: bool = False,
    further: Sequence[Note] = (),
) -> Scored:
    """Score captions as a file has them.

    Parameters
    ----------
    captions
        As :func:`kvtune.chair.read_captions_file` gives them.
    ground_truth
        Image id to the categories in it, for every captioned image.
    cleaning
        What is cut from a caption first.
    fields, options
        See :func:`kvtune.chair.notes.look_at`.
    details
        Say what each caption mentions.
    further
        Notes to be added.

    Raises
    ------
    RequestError
        If an image has no ground truth.
    """
    cleaned = [{**caption, "caption": cleaning(caption["caption"])} for caption in captions]
    scorer = ChairScorer(ground_truth)
    counts = scorer.counts(cleaned)
    notes = look_at(cleaned, counts.table, fields=fields, options=options, ending=not cleaning.complete_sentences)
    notes += [*look_at_cleaning([caption["caption"] for caption in captions], cleaning, options), *further]
    return Scored(
        ChairScore.of(counts.totals(), captions=len(counts)),
        score_intervals(counts),
        notes,
        len({caption["image_id"] for caption in cleaned}),
        scorer.details(cleaned) if details else [],
    )


def score_document(scored: Scored) -> dict[str, Any]:
    """What ``kvtune score --json`` prints: the rates, ``intervals`` (95 %, by rate) and ``notes``."""
    intervals = {name: list(bounds) for name, bounds in scored.intervals.items()}
    return scored.score.to_dict() | {"intervals": intervals, "notes": [note.to_dict() for note in scored.notes]}


def score_view(scored: Scored) -> RenderableType:
    """What ``kvtune score`` prints."""
    score = scored.score
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column()
    table.add_column(style="dim")
    for name, metric in METRICS.items():
        bounds = interval(scored.intervals[name]) if name in scored.intervals else ""
        table.add_row(metric.label, f"{getattr(score, name):.2f}", bounds, metric.meaning)
    images = "1 image" if scored.images == 1 else f"{scored.images} images"
    table.add_row("captions", str(score.captions), "", f"of {images}; 95 % intervals")
    table.add_row("scorer", "", "", score.scorer)
    return Group(table, "", notes_view(scored.notes)) if scored.notes else table


def notes_view(notes: Sequence[Note]) -> RenderableType:
    """Notes in the terminal, warnings first."""
    grid = Table.grid(padding=(0, 1, 0, 0))
    for note in sorted(notes, key=lambda note: not note.is_warning):
        word = Text("warning:", style="bold yellow") if note.is_warning else Text("note:")
        grid.add_row(word, Text(note.text))
    return grid
