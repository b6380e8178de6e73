"""Alternatives in one study: a method is chosen like a parameter, and brings its own parameters with it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
from fake_search import LAYERS, new_study, run_search
from pydantic import ValidationError

from kvtune.analysis.export import export
from kvtune.analysis.importance import importance
from kvtune.analysis.summarize import summarize
from kvtune.errors import RequestError
from kvtune.methods import CHOICE, Alternatives, Stack, get_method
from kvtune.presets import load_preset
from kvtune.search.enqueue import parse_point
from kvtune.search.published_settings import published_settings
from kvtune.search.rounds import Plan
from kvtune.search.samplers import check_sampler, grid_points
from kvtune.search.warm_start import other_front, start_from
from kvtune.spaces import SearchSpace, load_space, space_for
from kvtune.study.manifest import Manifest, check_trials, load_manifest, load_trials
from kvtune.study.study_folder import StudyFolder, default_name
from kvtune.study.trials import Ledger, Trial
from kvtune.text import sqlite_url

BOTH = space_for("pai,clvs", [], LAYERS).fitted(LAYERS)
STACKS = space_for("kvsmooth,pai,kvsmooth+pai", [], LAYERS).fitted(LAYERS)
SEARCHED = {
    "pai": ["pai.alpha", "start_layer", "end_layer"],
    "clvs": ["clvs.alpha", "beta", "threshold"],
}
PAI = {CHOICE: "pai", "pai.alpha": 0.2, "start_layer": 1, "end_layer": 8}


def test_what_parameters_are_called() -> None:
    assert [*BOTH.parameters] == [*SEARCHED["pai"], *SEARCHED["clvs"]]
    assert "alpha" in space_for("kvsmooth,kvsmooth+pai", [], LAYERS).parameters, "of one alternative alone"
    here = [name for known in STACKS.alternatives.parameters.values() for name in known.values()]
    assert len(set(here)) == len(here)
    assert {"kvsmooth.start_layer", "pai.start_layer", "kvsmooth+pai.pai.start_layer"} < set(here)
    for name, part in STACKS.parts.items():
        own = get_method(name).from_parameters({n: r.low for n, r in part.parameters.items()}).parameters()
        setting = STACKS.alternatives.here(name, own)
        assert setting[CHOICE] == name and STACKS.alternatives.own(name, setting) == own
        assert STACKS.method_of(setting).parameters() == own
    assert isinstance(STACKS.samples()[2], Stack)


def test_a_file_lists_them_and_a_manifest_keeps_them(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(
        "method: [pai, clvs]\nparameters:\n  pai.alpha: {low: 0, high: 1}\n  beta: {low: 0.5, high: 0.9}\n"
        "fixed: {start_layer: 1, end_layer: 6, clvs.alpha: 0.7}\n"
    )
    space = load_space(path).fitted(LAYERS)
    assert [part.method for part in space.parts.values()] == ["pai", "clvs"]
    assert space.full({CHOICE: "clvs", "beta": 0.8})["clvs.alpha"] == 0.7
    assert space.full({CHOICE: "pai", "pai.alpha": 0.5}) == {**PAI, "pai.alpha": 0.5, "end_layer": 6}
    _, manifest = new_study(tmp_path / "s", space=space, published=False)
    assert load_manifest(StudyFolder(tmp_path / "s")) == manifest and manifest.fingerprint.method == "pai,clvs"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("method: [pai]\nparameters: {alpha: {low: 0, high: 1}}", "a method's name, or a list of two or more"),
        ("method: [pai, 3]\nparameters: {alpha: {low: 0, high: 1}}", "a method's name, or a list of two or more"),
        ("method: [pai, pai]\nparameters: {alpha: {low: 0, high: 1}}", "pai,pai has pai twice"),
        ("method: [pai, pie]\nparameters: {alpha: {low: 0, high: 1}}", "unknown method 'pie'"),
        ("method: [pai, clvs]\nparameters: {alpha: {low: 0, high: 1}}", "no parameter 'alpha'.* pai.alpha"),
        ("method: [pai, clvs]\nparameters: {pai.alpha: {low: 0, high: 1}}", "clvs has no parameter that is searched"),
        (
            "method: [pai, clvs]\nparameters: {pai.alpha: {low: -1, high: 1}, beta: {low: 0, high: 1}}",
            "pai: alpha must be a number of at least 0",
        ),
    ],
)
def test_what_is_wrong_with_a_space_is_told(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "space.yaml").write_text(text)
    with pytest.raises(RequestError, match=said):
        load_space(tmp_path / "space.yaml").fitted(LAYERS)


def judged(trial: Trial) -> Trial:
    """CLVS is better than PAI, the more so the larger its alpha."""
    alpha = trial.params.get("clvs.alpha", -1.0)
    return replace(trial, state="complete", metrics={"chair_s": 40.0 - 10 * alpha, "f1": 60.0 + 10 * alpha})


def searched(sampler: str, count: int, published: Any = (), at_once: int = 8) -> list[Trial]:
    how = Plan(BOTH, sampler, 0, 8, published)  # type: ignore[arg-type]
    found: list[Trial] = []
    while len(found) < count:
        start = len(found)
        stop = min(count, (start // 8 + 1) * 8, start + at_once)
        found += [judged(trial) for trial in how.trials(found, start, stop)]
    return found


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid"])
def test_every_trial_has_one_method_and_its_parameters(sampler: str) -> None:
    published = [PAI, BOTH.full({CHOICE: "clvs", "clvs.alpha": 0.8, "beta": 0.7, "threshold": 0.5})]
    found = searched(sampler, 40, published)
    assert [trial.params for trial in found[:2]] == published
    assert [trial.published for trial in found[:3]] == [True, True, False]
    for trial in found:
        assert next(iter(trial.params)) == CHOICE and BOTH.point(trial.params) is not None
        assert [*BOTH.searched(trial.params)] == SEARCHED[trial.params[CHOICE]]  # type: ignore[index]
    chosen = [trial.params[CHOICE] for trial in found]
    assert {"pai", "clvs"} == set(chosen) and len({repr(trial.params) for trial in found}) == 40
    assert found == searched(sampler, 40, published, at_once=3), "however often it was interrupted"
    if sampler == "tpe":
        late = [trial.params["clvs.alpha"] for trial in found[24:] if trial.params[CHOICE] == "clvs"]
        assert chosen[24:].count("clvs") > 12 and sum(late) / len(late) > 0.6, "it has learned which, and how"


def test_samplers_that_cannot_are_refused() -> None:
    for sampler in ("nsga2", "gp"):
        with pytest.raises(RequestError, match=f"--sampler {sampler} searches parameters that all settings have"):
            check_sampler(sampler, BOTH)  # type: ignore[arg-type]
        check_sampler(sampler, BOTH.parts["pai"])  # type: ignore[arg-type]
    stepless = BOTH.model_dump() | {"parameters": BOTH.model_dump()["parameters"] | {"beta": {"low": 0, "high": 1}}}
    with pytest.raises(RequestError, match="needs a step for beta"):
        check_sampler("grid", SearchSpace.model_validate(stepless).fitted(LAYERS))


def test_the_grid_is_that_of_each() -> None:
    points = list(grid_points(BOTH, 0))
    sizes = {name: len(list(grid_points(part, 0))) for name, part in BOTH.parts.items()}
    assert len({repr(point) for point in points}) == len(points) == sum(sizes.values())
    assert sum(point[CHOICE] == "pai" for point in points) == sizes["pai"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[StudyFolder, Manifest]:
    folder, manifest = new_study(tmp_path_factory.mktemp("studies") / "both", 12, "tpe", 8, 3, BOTH, published=False)
    run_search(folder, manifest, 16)
    return folder, load_manifest(folder)


def test_a_search_stopped_and_scored_again_is_the_same(study: tuple[StudyFolder, Manifest], tmp_path: Path) -> None:
    folder, manifest = study
    other, begun = new_study(tmp_path / "both", 12, "tpe", 8, 3, BOTH, published=False)
    for count in (1, 7, 16):
        run_search(other, begun, count)
        begun = load_manifest(other)
    assert load_trials(folder, manifest).trials == load_trials(other, begun).trials

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    stored = optuna.load_study(study_name="both", storage=sqlite_url(folder.database)).trials
    assert [trial.params.keys() for trial in stored] == [
        {CHOICE, *SEARCHED[str(trial.params[CHOICE])]} for trial in load_trials(folder, manifest).trials
    ]
    categorical = optuna.distributions.CategoricalDistribution(("pai", "clvs"))
    assert all(trial.distributions[CHOICE] == categorical for trial in stored)


def test_the_preset_has_the_chosen_method_and_its_parameters_alone(
    study: tuple[StudyFolder, Manifest], tmp_path: Path
) -> None:
    folder, manifest = study
    for trial in load_trials(folder, manifest).trials[:6]:
        preset, _ = export(folder, f"trial:{trial.number}")
        assert preset.method_name == trial.params[CHOICE]
        assert preset.parameters == BOTH.method_of(trial.params).parameters()
        preset.save(tmp_path / "preset.json")
        assert load_preset(tmp_path / "preset.json").method() == BOTH.method_of(trial.params)
    assert summarize(folder, statistics=False).method == "pai,clvs"


def test_a_front_is_taken_over_where_its_methods_are_searched(study: tuple[StudyFolder, Manifest]) -> None:
    folder, manifest = study
    studies = folder.path.parent
    front = {n: load_trials(folder, manifest).trials[n].params for n in summarize(folder, statistics=False).front}
    of = {name: [n for n, params in front.items() if params[CHOICE] == name] for name in SEARCHED}
    assert all(of.values()), "both are on the front, or this shows nothing"
    start, notes = start_from(*other_front("both", studies, "pai"), BOTH.parts["pai"], LAYERS, [])
    assert [each.trial for each in start.points] == of["pai"] and CHOICE not in start.points[0].point
    assert any("is left out: its method is clvs" in note for note in notes)
    start, _ = start_from(*other_front("both", studies, "kvsmooth,pai,kvsmooth+pai"), STACKS, LAYERS, [])
    assert [each.trial for each in start.points] == of["pai"]
    assert [STACKS.full(each.point)["pai.alpha"] for each in start.points] == [
        front[number]["pai.alpha"] for number in of["pai"]
    ]
    with pytest.raises(RequestError, match="that study tuned pai,clvs, not kvsmooth"):
        other_front("both", studies, "kvsmooth")


def test_a_trial_of_another_method_is_refused(study: tuple[StudyFolder, Manifest]) -> None:
    folder, manifest = study
    ledger = Ledger(folder.ledger)
    wrong = "trial 0: method must be one of pai, clvs, not 'vaf'"
    changes: list[tuple[Callable[[Trial], Trial], str]] = [
        (
            lambda t: replace(t, params=t.params | {CHOICE: "vaf"}),
            wrong,
        ),
        (lambda t: replace(t, params={CHOICE: "pai"}), "trial 0: there must be a number for 'pai.alpha'"),
    ]
    for change, said in changes:
        ledger.change(lambda trial, change=change: change(trial) if trial.number == 0 else trial)  # type: ignore[misc]
        with pytest.raises(RequestError, match=said):
            check_trials(ledger, manifest)


def test_a_setting_is_enqueued_by_its_method() -> None:
    text = "method=pai,pai.alpha=0.2,start_layer=1,end_layer=8"
    assert BOTH.full(parse_point(text, BOTH)) == PAI
    for wrong, said in (
        ("pai.alpha=0.2", "method must be one of pai, clvs, not None"),
        (text + ",beta=0.5", "'beta' is no parameter that is searched; .* of method, pai.alpha, start_layer"),
        ("method=pai,method=pai", "'method' is there twice"),
    ):
        with pytest.raises(RequestError, match=said):
            parse_point(wrong, BOTH)


def test_the_first_trials_are_what_is_published_of_each() -> None:
    llava = SimpleNamespace(name="llava-1.5", published_preset="llava-1.5", n_layers=32)
    space = space_for("kvsmooth,pai,sparc", ["llava-1.5"], 32).fitted(32)
    found = published_settings(space, llava)  # type: ignore[arg-type]
    assert [each.parameters[CHOICE] for each in found] == ["kvsmooth", "pai", "sparc"]
    assert all(space.point(each.parameters) for each in found if each.enqueued) and found[1].enqueued
    assert found[1].parameters["pai.alpha"] == 0.2 and found[1].source == "README of LALBJ/PAI, without its contrast"


def test_importance_is_of_the_trials_of_one_method() -> None:
    trials = searched("random", 90)
    of = {name: [trial for trial in trials if trial.params[CHOICE] == name] for name in SEARCHED}
    found = importance(of["clvs"], BOTH)
    assert found is not None and list(found.shares["chair_s"]) == SEARCHED["clvs"]
    assert max(found.shares["chair_s"], key=found.shares["chair_s"].__getitem__) == "clvs.alpha"


def test_manifests_of_one_published_setting_are_as_they_were(tmp_path: Path) -> None:
    _, manifest = new_study(tmp_path / "s")
    data = manifest.model_dump(mode="json")
    assert data["published"]["name"] == "fake" and Manifest.model_validate(data) == manifest
    assert Manifest.model_validate(data | {"published": None}).published == []
    both = Manifest.model_validate(data | {"published": [data["published"]] * 2})
    assert len(both.published) == 2 and both.model_dump(mode="json")["published"] == [data["published"]] * 2
    with pytest.raises(ValidationError):
        Manifest.model_validate(data | {"published": [3]})


def test_names() -> None:
    assert default_name("demo", "pai, clvs") == "demo-pai-or-clvs"
    assert default_name("demo", "kvsmooth+pai") == "demo-kvsmooth-pai"
    assert str(Alternatives.of("pai, clvs")) == "pai,clvs"
