"""Floors and raced trials: what they mean for the front, for a choice, and for each sampler."""

from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from fake_search import LAYERS, FakeCaptioner, new_study, run_search
from hypothesis import given
from hypothesis import strategies as st

from kvtune.analysis.selection import select
from kvtune.analysis.summarize import summarize
from kvtune.errors import KvtuneError, RequestError
from kvtune.search.rounds import Plan
from kvtune.spaces import SearchSpace
from kvtune.study.constraints import Constraints, check_floor, constraints_of, floor_value
from kvtune.study.manifest import load_manifest
from kvtune.study.study_folder import StudyFolder
from kvtune.study.trials import Trial

BASELINE = Trial(None, state="complete", metrics={"chair_s": 50.0, "f1": 74.0, "mean_words": 80.0})


@pytest.mark.parametrize(
    ("text", "kept", "value"),
    [
        ("72", "72", 72),
        (" 72.50 ", "72.5", 72.5),
        ("baseline", "baseline", 74),
        ("baseline-2", "baseline-2", 72),
        ("baseline + 1.5", "baseline+1.5", 75.5),
        ("baseline-0", "baseline", 74),
        ("0", "0", 0),
        ("1234567", "1234567", 1234567),
        ("baseline-0.00001", "baseline-0.00001", 73.99999),
    ],
)
def test_floors_as_they_are_written(text: str, kept: str, value: float) -> None:
    assert check_floor(text) == kept == check_floor(kept)
    assert floor_value(kept, 74.0) == value


@pytest.mark.parametrize(
    "text", ["", "-2", "+3", "much", "base-2", "72%", "nan", "1e3", "baseline-", "7 2", "9" * 22, "0." + "3" * 20]
)
def test_what_is_no_floor(text: str) -> None:
    with pytest.raises(RequestError, match="is no floor; write"):
        check_floor(text)


def judged(state: str = "complete", f1: float = 73.0, words: float = 70.0) -> Trial:
    return Trial(3, state=state, metrics={"chair_s": 40.0, "f1": f1, "mean_words": words})  # type: ignore[arg-type]


def test_constraints_are_met_at_0_or_below() -> None:
    found = constraints_of(True, {"f1": "baseline-2", "mean_words": "60"}, BASELINE)
    assert found.of(judged()) == {"raced": -1.0, "min_f1": -1.0, "min_words": -10.0}
    assert found.of(judged("raced", words=45.5)) == {"raced": 1.0, "min_f1": -1.0, "min_words": 14.5}
    assert found.of(Trial(4)) == {}
    assert found.met_by(judged()) and found.met_by(judged(f1=72.0))
    assert not found.met_by(judged(f1=71.9)) and not found.met_by(judged("raced"))
    assert found.below({"f1": 1.0, "mean_words": 1.0}) == ("f1", "mean_words")
    assert Constraints().of(judged("raced")) == {}


def test_floors_wait_for_the_baseline() -> None:
    assert constraints_of(False, {"f1": "baseline", "mean_words": None}, Trial(None)) == Constraints()


@given(st.floats(0, 100), st.floats(0, 100))
def test_a_trial_meets_a_floor_if_optuna_says_so(least: float, value: float) -> None:
    found = Constraints(False, {"f1": least})
    trial = judged(f1=value)
    assert found.met_by(trial) == all(each <= 0 for each in found.of(trial).values())


@pytest.fixture(scope="module")
def floored(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    folder, manifest = new_study(
        tmp_path_factory.mktemp("floored") / "s", 40, "tpe", min_f1="baseline-1", min_words="8.2"
    )
    run_search(folder, manifest, 16, FakeCaptioner(shared_luck=True))
    return folder


def test_the_front_is_of_trials_that_keep_the_floors(floored: StudyFolder) -> None:
    summary = summarize(floored, statistics=False)
    assert summary.baseline is not None and summary.baseline.rate("f1") is not None
    assert summary.floors == {"f1": summary.baseline.rate("f1") - 1, "mean_words": 8.2}
    for trial in summary.trials:
        assert trial.rate("f1") is not None and trial.rate("mean_words") is not None
        below = ("f1",) * (trial.rate("f1") < summary.floors["f1"]) + ("mean_words",) * (trial.rate("mean_words") < 8.2)
        assert trial.below_floor == below and trial.state == "complete"
        if trial.number in summary.front:
            assert not below
    every = {word for trial in summary.trials for word in trial.below_floor}
    assert every == {"f1", "mean_words"} and summary.front


def test_optuna_lists_the_same_front(floored: StudyFolder) -> None:
    study = optuna.load_study(study_name=floored.name, storage=f"sqlite:///{floored.database}")
    summary = summarize(floored, statistics=False)
    assert sorted(trial.number for trial in study.best_trials) == sorted(summary.front)
    for stored, trial in zip(study.trials, summary.trials, strict=True):
        assert stored.constraints["min_f1"] == summary.floors["f1"] - (trial.rate("f1") or 0)
        assert set(stored.constraints) == {"min_f1", "min_words"}


def test_a_trial_below_a_floor_is_not_chosen(floored: StudyFolder) -> None:
    summary = summarize(floored, statistics=False)
    for rule in ("min-chair", "max-f1", "knee"):
        assert not select(summary, rule).trial.below_floor
    below = next(trial.number for trial in summary.trials if trial.below_floor)
    with pytest.raises(RequestError, match=rf"trial {below} of s is below its floor of F1 \d+\.\d and words 8\.2"):
        select(summary, f"trial:{below}")
    hopeless = replace(summary, trials=[replace(trial, below_floor=("f1",)) for trial in summary.trials])
    with pytest.raises(KvtuneError, match="every complete trial of s is below its floor"):
        select(hopeless)


def test_the_hypervolume_is_that_of_the_front(floored: StudyFolder, tmp_path: Path) -> None:
    folder, manifest = new_study(tmp_path / "s", 40, "tpe", min_f1="99")
    run_search(folder, manifest, 3)
    summary = summarize(folder, statistics=False)
    assert summary.front == [] and summary.hypervolume == 0
    assert (summarize(floored, statistics=False).hypervolume or 0) > 0
    assert load_manifest(folder).fingerprint.min_f1 == "99"


LINE = SearchSpace.model_validate(
    {
        "method": "kvsmooth",
        "parameters": {"lambda_ref": {"low": 0, "high": 1, "step": 0.005}, "clip_width": {"low": 0, "high": 0.5}},
        "fixed": {"end_layer": 8},
    }
).fitted(LAYERS)


def history(lucky: str) -> list[Trial]:
    """Complete trials with a small λ_ref on a front, and, beyond 0.6, trials whose few images flatter them."""
    trials = []
    for number in range(24):
        good = number % 2 == 0
        value = round((0.02 + 0.02 * number if good else 0.6 + 0.015 * number) / 0.005) * 0.005
        params = LINE.full({"lambda_ref": round(value, 10), "clip_width": 0.01 * (number % 7)})
        point = (50 - 40 * value, 75 - 10 * value) if good else (5.0 + number / 10, 90.0 + number / 10)
        state = "complete" if good else lucky
        metrics = {"chair_s": point[0], "f1": point[1], "mean_words": 50.0}
        sampler = {"NSGAIISampler:generation": number // 8} if number < 24 else {}
        trials.append(Trial(number, params, sampler=sampler, state=state, metrics=metrics))  # type: ignore[arg-type]
    return trials


def beyond(sampler: str, lucky: str) -> float:
    """The share of the next settings that lie where the flattered trials were."""
    seeds, stop = (1, 25) if sampler == "gp" else (6, 32)  # Gaussian processes take their time
    constraints = Constraints(race=True)
    plans = [Plan(LINE, sampler, seed, 8, constraints=constraints) for seed in range(seeds)]  # type: ignore[arg-type]
    asked = [trial for plan in plans for trial in plan.trials(history(lucky), 24, stop)]
    return sum(trial.params["lambda_ref"] > 0.58 for trial in asked) / len(asked)


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "gp"])
def test_a_sampler_learns_from_raced_trials_and_does_not_prefer_them(sampler: str) -> None:
    """Scores of few images may flatter; told that the trial was raced out, the sampler looks elsewhere."""
    assert beyond(sampler, "complete") > 0.6
    assert beyond(sampler, "raced") < 0.4


@pytest.mark.parametrize("sampler", ["random", "grid"])
def test_a_sampler_that_never_looks_back_does_not_mind_them(sampler: str) -> None:
    space = LINE if sampler == "random" else _without_clip()
    plans = [
        Plan(space, sampler, 0, 8, constraints=Constraints(race=True)).trials(history(state), 24, 32)  # type: ignore[arg-type]
        for state in ("complete", "raced")
    ]
    assert plans[0] == plans[1] and len(plans[0]) == 8


def _without_clip() -> SearchSpace:
    return SearchSpace(method="kvsmooth", parameters={"lambda_ref": LINE.parameters["lambda_ref"]}, fixed=LINE.fixed)
