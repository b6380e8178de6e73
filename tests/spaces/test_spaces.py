"""Search spaces: the YAML, its checks against method and model, and what Optuna gets."""

import itertools
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution, IntDistribution

from kvtune.errors import RequestError
from kvtune.methods import KVSmooth, Method, Published, get_method, method_names
from kvtune.spaces import Range, SearchSpace, default_space, load_space, space_for, spaces_folder

FAMILIES = {
    "demo": 16,
    "llava-1.5": 32,
    "llava-1.5-13b": 40,
    "instructblip": 32,
    "minigpt4": 32,
    "llava-next": 32,
    "qwen2.5-vl": 28,
}


def written(tmp_path: Path, **changes: Any) -> Path:
    data: dict[str, Any] = {
        "method": "kvsmooth",
        "parameters": {
            "lambda_ref": {"low": 0, "high": 1},
            "queue_length": {"low": 2, "high": 64, "log": True},
            "start_layer": {"low": 0, "high": 15},
            "end_layer": {"low": 16, "high": 32},
        },
        "fixed": {"target": "kv"},
    }
    path = tmp_path / "space.yaml"
    path.write_text(yaml.safe_dump(data | changes))
    return path


@pytest.mark.parametrize(("name", "layers"), FAMILIES.items())
def test_shipped_spaces_span_the_ranges_of_the_design(name: str, layers: int) -> None:
    space = load_space(spaces_folder() / "kvsmooth" / f"{name}.yaml").fitted(layers)
    half = layers // 2
    found = {key: (value.low, value.high) for key, value in space.parameters.items()}
    assert found == {
        "lambda_ref": (0, 1),
        "queue_length": (2, 64),
        "clip_width": (0, 0.5),
        "start_layer": (0, half - 1),
        "end_layer": (half, layers),
    }
    assert space == default_space("kvsmooth", layers).fitted(layers)
    assert space_for("kvsmooth", [name], layers).fitted(layers) == space


def test_every_family_has_its_space() -> None:
    assert {path.stem for path in spaces_folder().glob("kvsmooth/*.yaml")} == set(FAMILIES)


def test_a_model_of_another_depth_gets_a_space_of_its_own() -> None:
    assert space_for("kvsmooth", ["llava-1.5"], 40) == default_space("kvsmooth", 40)
    assert space_for("kvsmooth", ["no-such-family"], 9).parameters["end_layer"] == Range(low=5, high=9)


def test_a_space_that_ships_comes_before_what_the_method_declares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kvsmooth").mkdir()
    written(tmp_path).rename(tmp_path / "kvsmooth" / "family.yaml")
    monkeypatch.setattr("kvtune.spaces.shipped.spaces_folder", lambda: tmp_path)
    found = space_for("kvsmooth", ["no-such-model", "family"], 32)
    assert found == load_space(tmp_path / "kvsmooth" / "family.yaml") != default_space("kvsmooth", 32)


def test_a_single_layer_may_be_any() -> None:
    assert default_space("sparc", 9).parameters["layer"] == Range(low=0, high=8)


@given(layers=st.integers(2, 120))
def test_default_spaces_fit_and_their_layers_never_cross(layers: int) -> None:
    space = default_space("kvsmooth", layers).fitted(layers)
    assert space.parameters["start_layer"].high < layers / 2 <= space.parameters["end_layer"].low
    assert space.parameters["start_layer"].high < space.parameters["end_layer"].low


PUBLISHED = [(get_method(name), one) for name in method_names() for one in get_method(name).published]
LAYERS_OF = {"llava-1.5-13b": 40, "qwen2.5-vl": 28}


@pytest.mark.parametrize(("method", "published"), PUBLISHED)
def test_what_is_published_is_a_point_of_the_default_space(method: type[Method], published: Published) -> None:
    layers = LAYERS_OF.get(published.model, 32)
    parameters = method.from_parameters(published.parameters).parameters()
    space = default_space(method.name, layers, [published.model]).fitted(layers)
    assert space.point(parameters) is not None
    assert published.source
    assert method.published_for(published.model, layers) == published


def test_number_types_follow_the_method_not_the_spelling(tmp_path: Path) -> None:
    made = load_space(written(tmp_path)).fitted(32).distributions()
    assert made["lambda_ref"] == FloatDistribution(0.0, 1.0)
    assert made["queue_length"] == IntDistribution(2, 64, log=True)
    assert made["end_layer"] == IntDistribution(16, 32)
    parameters = {
        "lambda_ref": {"low": 0.1, "high": 0.9, "step": 0.1},
        "queue_length": {"low": 2.0, "high": 64.0},
        "clip_width": {"low": 0.1, "high": 1, "log": True},
    }
    made = load_space(written(tmp_path, parameters=parameters)).fitted(32).distributions()
    assert made == {
        "lambda_ref": FloatDistribution(0.1, 0.9, step=0.1),
        "queue_length": IntDistribution(2, 64),
        "clip_width": FloatDistribution(0.1, 1.0, log=True),
    }


def test_a_fitted_space_survives_json() -> None:
    space = default_space("kvsmooth", 8).fitted(8)
    again = SearchSpace.model_validate_json(space.model_dump_json())
    assert again == space
    assert again.distributions() == space.distributions()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"sampler": "tpe"}, ["unknown key 'sampler'", "method, parameters, fixed"]),
        ({"parameters": {"lambda_ref": {"low": 0, "high": 1, "scale": 2}}}, ["lambda_ref.scale", "low, high, step"]),
        ({"parameters": {"lambda_ref": {"low": 0}}}, ["parameters.lambda_ref.high", "missing"]),
        ({"parameters": {"lambda_ref": {"low": 1, "high": 0}}}, ["low 1 is above high 0", "lambda_ref"]),
        ({"parameters": {"lambda_ref": {"low": 0, "high": 1, "step": 0.3}}}, ["step 0.3 does not lead"]),
        ({"parameters": {"lambda_ref": {"low": 0, "high": 1, "log": True}}}, ["log needs a low above 0"]),
        ({"parameters": {"lambda_ref": {"low": 0.1, "high": 1, "log": True, "step": 0.1}}}, ["step or log"]),
        ({"parameters": {"lambda_ref": {"low": "x", "high": 1}}}, ["lambda_ref.low"]),
        ({"parameters": {"lambda_ref": {"low": 0, "high": 1, "step": 0}}}, ["lambda_ref.step"]),
        ({"parameters": {}}, ["parameters"]),
        ({"method": 3}, ["method"]),
    ],
)
def test_a_wrong_file_is_named_with_its_key(tmp_path: Path, changes: dict[str, Any], words: list[str]) -> None:
    path = written(tmp_path, **changes)
    with pytest.raises(RequestError) as caught:
        load_space(path)
    assert all(word in str(caught.value) for word in [*words, str(path)])


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "a: [", "\x00"])
def test_a_file_that_is_no_space(tmp_path: Path, text: str) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    with pytest.raises(RequestError, match=str(path)):
        load_space(path)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (
            "method: pai\nparameters: {alpha: {low: 0, high: 1}}\nmethod: vaf\n",
            "'method' is there twice, line 3 column 1",
        ),
        ("method: pai\nparameters:\n  alpha: {low: 0, high: 1, low: 0.5}\n", "'low' is there twice, line 3 column 28"),
    ],
)
def test_a_key_that_is_there_twice(tmp_path: Path, text: str, place: str) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(text)
    with pytest.raises(RequestError, match=f"is not valid YAML: the key {place}"):
        load_space(path)


def test_a_range_may_begin_as_another_one_does(tmp_path: Path) -> None:
    path = tmp_path / "space.yaml"
    path.write_text(
        "method: vaf\nparameters:\n  visual_gain: &wide {low: 1, high: 2}\n  system_gain: {<<: *wide, low: 0.5}\n"
    )
    ranges = load_space(path).parameters
    assert [(each.low, each.high) for each in ranges.values()] == [(1, 2), (0.5, 2)]


def test_a_missing_file() -> None:
    with pytest.raises(RequestError, match=r"/no/space.yaml does not exist"):
        load_space("/no/space.yaml")


@pytest.mark.parametrize(
    ("parameters", "fixed", "message"),
    [
        ({"lamda": {"low": 0, "high": 1}}, {}, "unknown parameter 'lamda', did you mean 'lambda_ref'"),
        ({"queue_length": {"low": 2, "high": 9}}, {}, "needs the parameter 'lambda_ref'"),
        ({"lambda_ref": {"low": 0, "high": 1.5}}, {}, "lambda_ref must be a number from 0 to 1"),
        ({"lambda_ref": {"low": -0.5, "high": 1}}, {}, "lambda_ref must be a number from 0 to 1"),
        ({"lambda_ref": {"low": 0, "high": 1}, "queue_length": {"low": 0, "high": 9}}, {}, "queue_length"),
        ({"lambda_ref": {"low": 0, "high": 1}, "queue_length": {"low": 2.5, "high": 9}}, {}, "whole numbers"),
        ({"lambda_ref": {"low": 0, "high": 1}, "end_layer": {"low": 16, "high": 33}}, {}, "at most 32"),
        ({"lambda_ref": {"low": 0, "high": 1}, "start_layer": {"low": 0, "high": 16}}, {}, "below half"),
        ({"lambda_ref": {"low": 0, "high": 1}, "end_layer": {"low": 15, "high": 32}}, {}, "at least half"),
        ({"lambda_ref": {"low": 0, "high": 1}}, {"lambda_ref": 0.5}, "under both"),
        ({"lambda_ref": {"low": 0, "high": 1}}, {"target": "values"}, "target must be one of"),
        ({"lambda_ref": {"low": 0, "high": 1}}, {"end_layer": 40}, "at most 32"),
        ({"lambda_ref": {"low": 0, "high": 1}, "adaptive": {"low": 0, "high": 1}}, {}, "not a number"),
    ],
)
def test_what_method_or_model_do_not_take(parameters: dict[str, Any], fixed: dict[str, Any], message: str) -> None:
    space = SearchSpace.model_validate({"method": "kvsmooth", "parameters": parameters, "fixed": fixed})
    with pytest.raises(RequestError, match=message):
        space.fitted(32)


def test_unknown_method() -> None:
    space = SearchSpace.model_validate({"method": "nosuch", "parameters": {"x": {"low": 0, "high": 1}}})
    with pytest.raises(RequestError, match="unknown method 'nosuch'"):
        space.fitted(32)
    with pytest.raises(RequestError, match="unknown method"):
        default_space("nosuch", 32)


def test_every_setting_has_all_parameters_of_the_method(tmp_path: Path) -> None:
    space = load_space(written(tmp_path)).fitted(32)
    point = {"lambda_ref": 0.25, "queue_length": 7, "start_layer": 3, "end_layer": 20}
    assert space.full(point) == KVSmooth(lambda_ref=0.25, queue_length=7, start_layer=3, end_layer=20).parameters()
    assert space.point(space.full(point)) == point


@pytest.mark.parametrize(
    "change",
    [{"lambda_ref": 1.2}, {"clip_width": 0.3}, {"target": "k"}, {"start_layer": 16}, {"adaptive": False}],
)
def test_settings_outside_the_space_have_no_point(tmp_path: Path, change: dict[str, Any]) -> None:
    space = load_space(written(tmp_path)).fitted(32)
    setting = KVSmooth(lambda_ref=0.25, queue_length=7, start_layer=3, end_layer=20).parameters()
    assert space.point(setting) is not None
    assert space.point(setting | change) is None


def test_a_setting_off_the_steps_has_no_point() -> None:
    space = default_space("kvsmooth", 32).fitted(32)
    published = KVSmooth(lambda_ref=0.7).parameters()
    assert space.point(published) is not None
    assert space.point(published | {"lambda_ref": 0.72}) is None


def test_grid_values() -> None:
    assert Range(low=0.0, high=0.3, step=0.1).grid() == [0.0, 0.1, 0.2, 0.3]
    assert Range(low=2, high=64, log=True).grid() == [2, 4, 8, 16, 32, 64]
    assert Range(low=3, high=6).grid() == [3, 4, 5, 6]
    assert Range(low=2, high=8, step=3).grid() == [2, 5, 8]
    assert Range(low=0.0, high=1.0).grid() is None
    assert Range(low=0.5, high=0.5, step=0.1).grid() == [0.5]


@given(low=st.integers(0, 20), steps=st.integers(1, 40), step=st.sampled_from([0.05, 0.1, 0.2, 0.25, 0.7]))
def test_grid_values_are_distinct_and_within_the_range(low: int, steps: int, step: float) -> None:
    found = Range(low=low / 4, high=round(low / 4 + steps * step, 10), step=step)
    values = found.grid()
    assert values is not None and len(set(values)) == steps + 1
    assert all(found.contains(value) for value in values)
    assert all(later - earlier == pytest.approx(step) for earlier, later in itertools.pairwise(values))


def test_the_grid_needs_steps(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="needs a step for lambda_ref: write one in the space, or use tpe"):
        load_space(written(tmp_path)).fitted(32).grids()
    layers = {"start_layer": {"low": 0, "high": 15}, "end_layer": {"low": 16, "high": 32}}
    space = written(tmp_path, parameters={"lambda_ref": {"low": 0.1, "high": 1, "log": True}} | layers)
    with pytest.raises(RequestError, match="lambda_ref: write one in the space, in place of log, or use tpe"):
        load_space(space).fitted(32).grids()


def test_shipped_spaces_have_a_grid() -> None:
    for name, layers in FAMILIES.items():
        assert load_space(spaces_folder() / "kvsmooth" / f"{name}.yaml").fitted(layers).grids()


def test_spaces_are_found_in_an_installed_wheel(tmp_path: Path) -> None:
    """An installed package has no repository beside it: the build puts the spaces where they are looked for."""
    repository = spaces_folder().parent
    shutil.copytree(
        repository / "kvtune", tmp_path / "kvtune", ignore=shutil.ignore_patterns("__pycache__", "*.safetensors")
    )
    build = tomllib.loads((repository / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    for source, target in build["force-include"].items():
        shutil.copytree(repository / source, tmp_path / target)
    code = (
        "from kvtune.spaces import *; print(spaces_folder());"
        "print(len(load_space(spaces_folder() / 'kvsmooth' / 'minigpt4.yaml').parameters))"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True, text=True)
    assert ran.stdout.split() == [str(tmp_path / "kvtune" / "search_spaces"), "5"]
