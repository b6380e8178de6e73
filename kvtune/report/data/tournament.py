"""What ``kvtune tournament --json`` prints."""

from dataclasses import asdict
from typing import Any

from kvtune.analysis.claims import verdict
from kvtune.search.tournament import Tournament


def tournament_document(tournament: Tournament) -> dict[str, Any]:
    """Return what a tournament found as one JSON document.

    Keys
    ----
    baseline
        ``metrics`` and ``intervals`` on held-out images.
    methods
        A list of ``method``, ``study``, ``chosen`` (a trial's number, null for none), ``reason``, ``metrics`` and
        ``intervals`` on held-out images (null and empty for none), finished ``trials``, ``captions``, ``tokens``,
        ``seconds``.
    pairs
        A list of ``one``, ``other``, ``differences`` of one minus other by metric, and ``verdict`` by metric:
        ``better``, ``worse`` or ``unclear``.
    left_out, failed
        Why, by method, of those that cannot serve the model, and of those whose study stopped midway.
    """
    found = tournament.found
    return {
        "baseline": {"metrics": found.baseline.to_dict(), "intervals": found.intervals},
        "methods": [
            {"method": entry.method, "study": entry.summary.study, "chosen": entry.chosen, "reason": entry.reason}
            | {"metrics": None if entry.metrics is None else entry.metrics.to_dict(), "intervals": entry.intervals}
            | {
                "trials": entry.summary.finished,
                "captions": entry.captions,
                "tokens": entry.tokens,
                "seconds": tournament.seconds[entry.method],
            }
            for entry in found.entries
        ],
        "pairs": [
            {
                "one": pair.one,
                "other": pair.other,
                "differences": {metric: asdict(each) for metric, each in pair.differences.items()},
                "verdict": {metric: verdict(metric, each) for metric, each in pair.differences.items()},
            }
            for pair in found.pairs
        ],
        "left_out": tournament.left_out,
        "failed": tournament.failed,
    }
