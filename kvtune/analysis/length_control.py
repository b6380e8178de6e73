"""Whether a setting hallucinates less, or merely says less: the control by the baseline's own captions, cut short."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kvtune.analysis.outcomes import Outcome
from kvtune.analysis.summary import CutBaseline, Length
from kvtune.chair import Rates
from kvtune.text import number_of


def cut_baseline(counts: NDArray[np.int64]) -> list[CutBaseline]:
    """The curve that the baseline draws when its captions are cut to 1, 2, 3, ... sentences (KVSmooth, figure 4).

    Parameters
    ----------
    counts
        Shape ``[cuts, images, len(COLUMNS)]``, as :meth:`kvtune.analysis.outcomes.Outcomes.of_cuts` gives it.
    """
    return [CutBaseline.of(table.sum(axis=0), sentences=number) for number, table in enumerate(counts, 1)]


def at_words(curve: Sequence[CutBaseline], mean_words: float) -> tuple[float, float]:
    """CHAIR_S and F1 of the baseline cut to ``mean_words`` words: linear between two cuts, the nearest beyond them."""
    ordered = sorted(curve, key=lambda cut: cut.mean_words)
    words = [cut.mean_words for cut in ordered]
    chair_s = np.interp(mean_words, words, [cut.chair_s for cut in ordered])
    f1 = np.interp(mean_words, words, [cut.f1 for cut in ordered])
    return float(chair_s), float(f1)


def length_of(outcome: Outcome, scores: Rates | None = None, curve: Sequence[CutBaseline] = ()) -> Length:
    """Length and repetition of a setting's captions, held against the cut baseline.

    A setting beats it if its CHAIR_S is lower than that of the baseline cut to as many words, and if no cut of the
    baseline is at least as good in CHAIR_S and F1 both. The second catches captions that are long but say the same
    thing again and again. Both compare point estimates.

    Parameters
    ----------
    scores
        Of the setting; None for the baseline.
    curve
        The cut baseline; empty for none.
    """
    at_limit = 100 * float(np.mean(outcome.at_limit))
    one, two, three = (float(value) for value in outcome.distinct.mean(axis=0))
    if scores is None or not curve:
        return Length(at_limit, (one, two, three))
    chair_s, f1 = at_words(curve, scores.mean_words)
    flag = None
    better = next((cut for cut in curve if cut.chair_s <= scores.chair_s and cut.f1 >= scores.f1), None)
    if scores.chair_s >= chair_s:
        flag = f"CHAIR_S {scores.chair_s:.1f} is not below the {chair_s:.1f} of the baseline cut to as many words"
    elif better is not None:
        sentences = number_of(better.sentences, "sentence")
        scores_of_cut = f"CHAIR_S {better.chair_s:.1f}, F1 {better.f1:.1f}"
        flag = f"the baseline cut to {sentences} is as good or better in both ({scores_of_cut})"
    return Length(at_limit, (one, two, three), chair_s, f1, flag)
