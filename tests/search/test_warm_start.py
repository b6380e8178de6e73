"""``--from``: a search that begins with the front of another study."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_search import LAYERS, PUBLISHED, new_study, run_search

from kvtune.analysis.summarize import summarize
from kvtune.errors import RequestError
from kvtune.search.warm_start import as_point, other_front, start_from
from kvtune.spaces import SearchSpace, default_space
from kvtune.study.manifest import Start, TrialPoint, load_manifest
from kvtune.study.study_folder import StudyFolder

pytestmark = pytest.mark.usefixtures("without_optuna")


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    folder, manifest = new_study(tmp_path_factory.mktemp("other") / "first", 20, "random", seed=5)
    run_search(folder, manifest, 12)
    return folder


def taken(other: StudyFolder, space: SearchSpace, layers: int = LAYERS) -> tuple[Start, list[str]]:
    return start_from(*other_front("first", other.path.parent, "kvsmooth"), space.fitted(layers), layers, [PUBLISHED])


SPACE = default_space("kvsmooth", LAYERS)


def with_range(name: str, **changed: float) -> SearchSpace:
    """The space with another range for one parameter."""
    data = SPACE.model_dump()
    return SearchSpace.model_validate(data | {"parameters": data["parameters"] | {name: changed}})


def test_the_front_in_its_order_but_for_the_published_preset(other: StudyFolder) -> None:
    start, notes = taken(other, SPACE)
    summary = summarize(other, statistics=False)
    wanted = [number for number in summary.front if summary.trials[number].params != PUBLISHED]
    assert len(wanted) >= 2
    assert [each.trial for each in start.points] == wanted
    fitted = SPACE.fitted(LAYERS)
    assert [fitted.full(each.point) for each in start.points] == [summary.trials[n].params for n in wanted]
    assert (start.study, start.study_id) == ("first", load_manifest(other).id)
    assert notes == [f"{len(wanted)} of {len(summary.front)} settings on the front of first tried first"]


def test_layers_are_scaled_to_another_model(other: StudyFolder) -> None:
    start, notes = taken(other, default_space("kvsmooth", 32), 32)
    summary = summarize(other, statistics=False)
    for each in start.points:
        there = summary.trials[each.trial].params
        assert each.point["start_layer"] == 4 * there["start_layer"]
        assert each.point["end_layer"] == 4 * there["end_layer"]
        assert each.point["lambda_ref"] == there["lambda_ref"]
    assert notes[0].endswith("tried first, their layers scaled from 8 to 32")


@pytest.mark.parametrize(
    ("there", "here", "layers"),
    # 39 of 80 layers are 19.5 of 40, and no start lies beyond 19; 16 of 33 are 15.5 of 32; 4 of 8 end at 16.5 of 33.
    [(80, 40, (39, 71, 19, 36)), (33, 32, (16, 33, 15, 32)), (8, 33, (1, 4, 4, 17)), (41, 36, (20, 21, 17, 18))],
)
def test_rounding_takes_no_layer_out_of_its_range(there: int, here: int, layers: tuple[int, int, int, int]) -> None:
    space, other = (default_space("kvsmooth", count).fitted(count) for count in (here, there))
    setting = other.full(PUBLISHED | {"start_layer": layers[0], "end_layer": layers[1]})
    point = as_point(setting, other, space, here / there)
    assert isinstance(point, dict) and (point["start_layer"], point["end_layer"]) == layers[2:]


def test_no_layer_is_moved_into_its_range_by_more_than_rounding() -> None:
    data, other = default_space("kvsmooth", 32).model_dump(), default_space("kvsmooth", 8).fitted(8)
    data["parameters"]["start_layer"]["high"] = 3
    space = SearchSpace.model_validate(data).fitted(32)
    assert as_point(other.full(PUBLISHED | {"start_layer": 1}), other, space, 4) == (
        "its start_layer of 4 is not between 0 and 3"
    )


def test_what_is_not_in_the_space_is_left_out_and_said(other: StudyFolder) -> None:
    summary = summarize(other, statistics=False)
    values = sorted(summary.trials[number].params["lambda_ref"] for number in summary.front)
    start, notes = taken(other, with_range("lambda_ref", low=0, high=values[-1] - 0.01))
    assert all(each.point["lambda_ref"] < values[-1] for each in start.points)
    assert any(f"its lambda_ref of {values[-1]:g} is not between 0 and" in note for note in notes[1:])


def test_values_between_steps_go_to_the_nearest(other: StudyFolder) -> None:
    coarse = with_range("lambda_ref", low=0, high=1, step=0.5)
    start, _ = taken(other, coarse)
    there = summarize(other, statistics=False).trials
    for each in start.points:
        assert each.point["lambda_ref"] in (0, 0.5, 1)
        assert abs(each.point["lambda_ref"] - there[each.trial].params["lambda_ref"]) <= 0.25 + 1e-9
    assert len({tuple(each.point.values()) for each in start.points}) == len(start.points)


def test_another_target_does_not_fit(other: StudyFolder) -> None:
    keys = SearchSpace.model_validate(SPACE.model_dump() | {"fixed": {"target": "k", "adaptive": True}})
    with pytest.raises(RequestError, match=r"no setting of its front is in the search space; trial \d+ of first is "):
        taken(other, keys)


def test_what_there_is_nothing_to_take_from(other: StudyFolder, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="there is no study 'second'"):
        other_front("second", other.path.parent, "kvsmooth")
    with pytest.raises(RequestError, match="--from first: that study tuned kvsmooth, not dscr"):
        other_front("first", other.path.parent, "dscr")
    new_study(tmp_path / "empty")
    with pytest.raises(RequestError, match="--from empty: that study has no complete trial yet"):
        other_front("empty", tmp_path, "kvsmooth")


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_the_settings_come_after_the_published_preset_and_once(
    tmp_path: Path, other: StudyFolder, sampler: str
) -> None:
    start, _ = taken(other, SPACE)
    points = [SPACE.fitted(LAYERS).full(each.point) for each in start.points]
    count = len(points) + 5

    def search(folder: StudyFolder, *trials: int) -> list[dict[str, Any]]:
        for goal in trials:
            run_search(folder, load_manifest(folder), goal)
        return [trial.params for trial in summarize(folder, statistics=False).trials]

    whole, _ = new_study(tmp_path / "a" / "s", 5, sampler, 3, start=start)
    asked = search(whole, count)
    assert asked[: len(points) + 1] == [PUBLISHED, *points]
    assert all(asked.count(params) == 1 for params in asked)
    pieces, _ = new_study(tmp_path / "b" / "s", 5, sampler, 3, start=start)
    assert search(pieces, 1, 3, 4, count) == asked


def test_the_other_study_may_go(tmp_path: Path, other: StudyFolder) -> None:
    copy = StudyFolder(Path(shutil.copytree(other.path, tmp_path / "first")))
    start, _ = taken(copy, SPACE)
    folder, _ = new_study(tmp_path / "s", 5, "tpe", 3, start=start)
    shutil.rmtree(copy.path)
    run_search(folder, load_manifest(folder), 5)
    assert load_manifest(folder).start == start
    second = summarize(folder, statistics=False).trials[1]
    assert replace(second, state="complete").params == SPACE.fitted(LAYERS).full(start.points[0].point)


def test_a_grid_begins_with_them_too(tmp_path: Path, other: StudyFolder) -> None:
    space = with_range("queue_length", low=15, high=15)
    data = space.model_dump()["parameters"]
    points = [{name: each["low"] for name, each in data.items()} | {"lambda_ref": value} for value in (0.5, 0.1)]
    given = [TrialPoint(trial=index, point=point) for index, point in enumerate(points)]
    start = Start(study="first", study_id="x", points=given)
    folder, _ = new_study(tmp_path / "s", 5, "grid", 3, space=space, start=start)
    run_search(folder, load_manifest(folder), 9)
    asked = [trial.params for trial in summarize(folder, statistics=False).trials]
    assert asked[:3] == [PUBLISHED, *map(space.fitted(LAYERS).full, points)]
    assert all(asked.count(params) == 1 for params in asked)
