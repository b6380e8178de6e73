"""Summaries of made-up studies, for tests of what reads them."""

import random
from collections.abc import Sequence

from kvtune.analysis.result import FORMAT, Difference, Result, Validated, Validation
from kvtune.analysis.sensitivity import Sweep, SweepPoint
from kvtune.analysis.summary import CutBaseline, State, StudySummary, TrialSummary
from kvtune.chair import METRICS, OBJECTIVES, Scores
from kvtune.presets import SubsetInfo
from kvtune.statistics.front import front, reference_point
from kvtune.statistics.hypervolume import hypervolume


def trial(
    number: int | None,
    chair_s: float | None,
    f1: float | None,
    state: State = "complete",
    *,
    published: bool = False,
    images: int = 500,
    width: float | None = None,
    **params: object,
) -> TrialSummary:
    """A trial at a place of the plane; ``width`` is the half width of its intervals, None for no intervals."""
    if chair_s is None or f1 is None:
        return TrialSummary(number, dict(params), None, 0, state, published)
    found = scores(chair_s, f1, images)
    rates = [name for name, metric in METRICS.items() if metric.unit == "%"] if width is not None else []
    intervals = {name: (found[name] - (width or 0), found[name] + (width or 0)) for name in rates}
    return TrialSummary(
        number, dict(params), found, images, state, published, intervals, raced_out_by=0 if state == "raced" else None
    )


def scores(chair_s: float, f1: float, images: int = 500) -> Scores:
    """Scores at a place of the plane."""
    return Scores(
        **_rates(chair_s=chair_s, precision=max(0, f1 - 1), recall=min(100, f1 + 1), f1=f1, mean_words=90.0),
        images=images,
    )


def _rates(**known: float) -> dict[str, float]:
    """Metrics of which only some matter."""
    return dict.fromkeys(METRICS, known["chair_s"] / 3) | known


def cut_curve(*cuts: tuple[float, float, float]) -> list[CutBaseline]:
    """The baseline cut to 1, 2, ... sentences, each with (words, CHAIR_S, F1)."""
    return [
        CutBaseline(
            **_rates(chair_s=chair_s, precision=100.0 - 4 * n, recall=40.0 + 8 * n, f1=f1, mean_words=words),
            sentences=n,
        )
        for n, (words, chair_s, f1) in enumerate(cuts, 1)
    ]


def study(
    trials: Sequence[TrialSummary],
    baseline: TrialSummary | None = trial(None, 47.2, 77.4),  # noqa: B008
    name: str = "llava15-kvsmooth",
) -> StudySummary:
    """A study of these trials, its front and hypervolume computed."""
    complete = [t for t in trials if t.state == "complete" and t.point is not None]
    points = [t.point for t in complete if t.point is not None]
    members = [number for index in front(points) if (number := complete[index].number) is not None]
    reference = reference_point(baseline.point) if baseline is not None and baseline.point is not None else None
    return StudySummary(
        study=name,
        model="llava-hf/llava-1.5-7b-hf",
        method="kvsmooth",
        subset=SubsetInfo(name="tune-500", sha256="ab" * 32, images=500),
        baseline=baseline,
        trials=list(trials),
        front=members,
        hypervolume=hypervolume(points, reference) if reference else None,
        reference_point={"chair_s": reference[0], "f1": reference[1]} if reference else None,
    )


def random_study(
    count: int = 50, seed: int = 0, *, raced: int = 0, failed: int = 0, running: int = 0, width: float | None = None
) -> StudySummary:
    """A study that looks like a real one: trial 0 is the published preset, then raced, failed and complete trials."""
    draw = random.Random(seed)
    states: list[State] = ["complete"] * (count - raced - failed - running)
    states += ["raced"] * raced + ["failed"] * failed + ["running"] * running
    trials = []
    for number, state in enumerate(states):
        params = {
            "lambda_ref": draw.random(), "queue_length": draw.choice([5, 10, 15, 30]), "clip_width": draw.random() / 2,
            "start_layer": draw.randrange(16), "end_layer": draw.randrange(16, 33), "target": "kv", "adaptive": True,
        }  # fmt: skip
        strength = params["lambda_ref"] * (params["end_layer"] - params["start_layer"]) / 32
        chair_s = None if state == "failed" else round(48 - 14 * strength + draw.gauss(0, 1.5), 1)
        f1 = 77.5 - 6 * abs(strength - 0.3) - 30 * max(0, strength - 0.7) + draw.gauss(0, 0.7)
        images = {"raced": 200, "running": 60}.get(state, 500)
        trials.append(trial(number, chair_s, f1, state, published=number == 0, images=images, width=width, **params))
    return study(trials, trial(None, 47.2, 77.4, width=width))


def validation(
    summary: StudySummary, numbers: Sequence[int | None], chair_s: float, f1: float, width: float, images: int = 400
) -> Validation:
    """Held-out results of some trials (None: the baseline): all at one place."""
    by_number = {trial.number: trial for trial in [summary.baseline, *summary.trials] if trial is not None}
    settings = []
    for number in numbers:
        found = by_number[number]
        now = trial(number, chair_s, f1, width=width, images=images)
        roles = ["published"] * found.published + ["front"] * (number in summary.front)
        settings.append(
            Validated(
                name="baseline" if number is None else f"trial-{number:04d}",
                number=number,
                roles=["baseline"] if number is None else roles,  # type: ignore[arg-type]
                params=found.params,
                tune=_result(found),
                holdout=_result(now),
                shrinkage={} if number is None else {"chair_s": 1.5, "f1": -0.5},
            )
        )
    return Validation(
        format=FORMAT,
        study=summary.study,
        study_id="0" * 32,
        scoring="test",
        subset=SubsetInfo(name="holdout", sha256="ef" * 32, images=images),
        tune_subset=summary.subset,
        statistics={},
        settings=settings,
    )


def _result(found: TrialSummary) -> Result:
    assert found.scores is not None
    differences = (
        {} if found.number is None else dict.fromkeys(OBJECTIVES, Difference(-4.0, (-6.0, -2.0), 0.001, 0.002))
    )
    return Result(metrics=found.scores, intervals=found.intervals, differences=differences)


def sweep(parameter, values, held):
    points = [
        SweepPoint(
            value=value,
            trial=None,
            metrics=scores(50.0 - index, 70.0 + index),
            intervals={"chair_s": (45.0 - index, 55.0 - index), "f1": (68.0, 75.0)},
        )
        for index, value in enumerate(values)
    ]
    return Sweep(parameter=parameter, held=held, points=points)
