"""CHAIR of a captions file: rates with intervals, and what makes them doubtful."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kvtune.chair import ChairScore, ChairScorer
from kvtune.chair.cleaning import Cleaning
from kvtune.chair.notes import Note, look_at, look_at_cleaning
from kvtune.statistics.bootstrap import score_intervals
from kvtune.statistics.confidence import Interval


@dataclass(frozen=True)
class Scored:
    """A captions file's scores.

    Attributes
    ----------
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

    def to_dict(self) -> dict[str, Any]:
        """What ``kvtune score --json`` prints: the rates, ``intervals`` (95 %, by rate) and ``notes``."""
        intervals = {name: list(bounds) for name, bounds in self.intervals.items()}
        return self.score.to_dict() | {"intervals": intervals, "notes": [note.to_dict() for note in self.notes]}


def score_captions(
    captions: Sequence[Mapping[str, Any]],
    ground_truth: Mapping[int, Collection[str]] | Mapping[str, Collection[str]],
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
        Image id, or its digits, to the categories in it, for every captioned image.
    cleaning
        What is cut from a caption first.
    fields, options
        See :func:`kvtune.chair.notes.look_at`.
    details
        Say what each caption mentions.

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
