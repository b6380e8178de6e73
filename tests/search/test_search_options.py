"""What of a search is refused before anything is loaded, and the space that it takes."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from kvtune.errors import RequestError
from kvtune.models.options import ModelOptions
from kvtune.search.begin import space_of
from kvtune.search.search_options import SearchOptions, check_options
from kvtune.spaces import space_for

VLM: Any = SimpleNamespace(name="demo", family=SimpleNamespace(name="demo"), n_layers=8)


def options(**given: Any) -> SearchOptions:
    return SearchOptions(ModelOptions("demo"), **given)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"sampler": "tpa"}, "unknown sampler 'tpa', did you mean 'tpe'?"),
        ({"race_confidence": 1.0}, "--race-confidence must be between 0 and 1, not 1"),
        ({"studies_dir": Path("/proc/version/studies")}, "cannot write studies in /proc/version/studies; make it"),
    ],
)
def test_what_is_refused_at_once(given: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError) as refused:
        check_options(options(**given))
    assert str(refused.value).startswith(said)


def test_a_space_of_other_methods_is_refused() -> None:
    given = space_for("pai", ["demo"], 8)
    with pytest.raises(RequestError, match=r"^s.yaml is a space of pai, not of --method kvsmooth$"):
        space_of(options(space=Path("s.yaml")), given, None, VLM)


@pytest.mark.parametrize("method", ["dscr", "kvsmooth,dscr", "kvsmooth+dscr"])
def test_depth_is_held_in_each_method_that_has_it(method: str) -> None:
    space = space_of(options(method=method, depth="maps"), None, None, VLM)
    held = [part.fixed.get("depth") for part in space.parts.values()]
    assert held == (["maps"] if method != "kvsmooth,dscr" else [None, "maps"])


def test_depth_is_refused_where_no_method_has_it() -> None:
    with pytest.raises(RequestError, match=r"--depth is for methods that use depth, as dscr; kvsmooth does not"):
        space_of(options(depth="maps"), None, None, VLM)
