"""Where a search space comes from: a file, those that ship, or what a method declares."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

import kvtune
from kvtune.errors import RequestError
from kvtune.files import check_path
from kvtune.json_files import without_half_pairs
from kvtune.schema import validated
from kvtune.spaces.ranges import Range
from kvtune.spaces.search_space import SearchSpace, declared_as
from kvtune.text import quoted


class _Loader(yaml.SafeLoader):
    """Refuses a key that is twice in one mapping, of which YAML keeps the last without a word."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {quoted(key.value)} is there twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return node


def load_space(path: str | Path) -> SearchSpace:
    """Read a search space from a YAML file.

    Raises
    ------
    RequestError
        If the file is missing, is not YAML, or a key is unknown, missing or wrong.
    """
    path = check_path(path)
    try:
        data = without_half_pairs(yaml.load(path.read_text(encoding="utf-8"), _Loader))
    except FileNotFoundError:
        raise RequestError(
            f"search space file {path} does not exist; those that ship are in {spaces_folder()}"
        ) from None
    except OSError as error:
        raise RequestError(f"search space file {path} cannot be read: {error.strerror or error}") from None
    except RecursionError:
        raise RequestError(f"search space file {path} is nested too deeply, or contains itself") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = "" if mark is None else f", line {mark.line + 1} column {mark.column + 1}"
        raise RequestError(f"search space file {path} is not valid YAML: {error.problem}{place}") from None
    except (yaml.YAMLError, ValueError) as error:  # a number of too many digits, a date that is none
        reason = str(error).splitlines()[0]
        raise RequestError(f"search space file {path} is not valid YAML: {reason}") from None
    return validated(SearchSpace, data, f"search space {path}")


def spaces_folder() -> Path:
    """The folder of the spaces that ship, ``METHOD/MODEL.yaml``: within an installed package, else beside it."""
    package = Path(kvtune.__file__).parent
    inside = package / "search_spaces"
    return inside if inside.is_dir() else package.parent / "search_spaces"


def space_for(method: str, names: Iterable[str], n_layers: int) -> SearchSpace:
    """The space that ships for a model or its family, or one made for the model's layers where none fits.

    Parameters
    ----------
    method
        The method's name, or those of alternatives with commas between.
    names
        Names to look for in :func:`spaces_folder`, the most special first: the model's, the family's.
    n_layers
        Decoder layers of the model; a space made for another number of layers is not used.
    """
    from kvtune.methods import Alternatives, get_method

    names = list(names)
    alternatives = Alternatives.of(method)
    if alternatives.is_choice:
        return SearchSpace.of_parts({each: space_for(each, names, n_layers) for each in alternatives.names})
    declared = get_method(method).declared()
    for path in (spaces_folder() / method / f"{name}.yaml" for name in names):
        if path.is_file():
            shipped = load_space(path)
            ends = [one for name, one in shipped.parameters.items() if declared_as(declared, name) == "end_layer"]
            if all(end.high == n_layers for end in ends):
                return shipped
    return default_space(method, n_layers, names)


def default_space(method: str, n_layers: int, names: Iterable[str] = ()) -> SearchSpace:
    """The ranges that a method declares, for any number of layers.

    Parameters
    ----------
    names
        Names of the model, for parameters that have no default and are published for some models.

    Raises
    ------
    RequestError
        If there is no such method, or it has a parameter for which nothing is known.
    """
    from kvtune.methods import get_method

    kind = get_method(method)
    known = kind.known_for(names)
    ranges: dict[str, Range] = {}
    fixed: dict[str, Any] = {}
    for name, parameter in kind.declared().items():
        split = math.ceil(n_layers * parameter.layer_split)
        if parameter.kind == "start_layer":
            ranges[name] = Range(low=0, high=split - 1)
        elif parameter.kind == "end_layer":
            ranges[name] = Range(low=split, high=n_layers)
        elif parameter.kind == "layer":
            ranges[name] = Range(low=0, high=n_layers - 1)
        elif parameter.search is not None:
            low, high, step = parameter.search
            ranges[name] = Range(low=low, high=high, step=step, log=parameter.log)
        elif name in known:
            fixed[name] = known[name]
        else:
            raise RequestError(
                f"{method} needs {name}, which is not known for this model: write a search space with it under fixed, "
                "and name it with --space FILE"
            )
    return SearchSpace(method=method, parameters=ranges, fixed=fixed)
