"""What is measured beside speed: memory, and what batch shape changes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from kvtune.bench.engine.arms import SHORT
from kvtune.bench.engine.peak import measured_peak
from kvtune.bench.engine.workload import Made, Workload
from kvtune.methods import Method

log = logging.getLogger(__name__)


def memory(work: Workload, methods: Sequence[Method], made: Made, peak: int | None) -> dict[str, Any]:
    """What the plan of the largest arm predicts beside what it held.

    On a CPU, where the arm was not looked at, the same grid is measured on captions of a few tokens, with every
    allocation noted; the room for longer ones is taken all the same.
    """
    plan = made.plan
    if peak is None:
        log.info("memory: captions of %d tokens, every allocation noted", SHORT // 4)
        again: list[Made] = []
        with work.short(SHORT // 4):
            peak = measured_peak(work.vlm, lambda: again.append(work.engine(methods)))
        plan = again[0].plan
    assert plan is not None
    return {"plan": plan.to_dict(), "measured_peak": peak, "predicted_over_measured": plan.peak / peak}


def noise(
    work: Workload, methods: Sequence[Method], images: int, chair_s: Callable[[dict[int, str]], float] | None
) -> dict[str, Any]:
    """What batch shape alone changes: captions of the first method, in one lane and amid those of all methods.

    Parameters
    ----------
    images
        How many of the images are captioned, at most: in one lane that takes as long as it does.
    """
    chosen = work.all[:images]
    log.info("noise floor: %d captions in one lane and on the full grid", len(chosen))
    alone = work.captions(work.captioner(1), methods[:1], chosen, [])
    together = work.captions(work.captioner(work.lanes), methods, chosen, [])
    changed = sum(alone[image, 0].token_ids != together[image, 0].token_ids for image in chosen)
    scores: list[float | None] = [None, None]
    if chair_s is not None:
        scores = [chair_s({n: captions[n, 0].text for n in chosen}) for captions in (alone, together)]
    return {
        "captions": len(chosen),
        "changed": changed,
        "chair_s_one_lane": scores[0],
        "chair_s_full_grid": scores[1],
        "chair_s_change": None if scores[0] is None or scores[1] is None else scores[1] - scores[0],
    }
