"""Reading presets: those that ship with kvtune by name, others by path."""

from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

from kvtune.errors import RequestError
from kvtune.files import check_path
from kvtune.json_files import read_json
from kvtune.presets.preset import Preset, SchemaVersion
from kvtune.schema import validated
from kvtune.text import did_you_mean, quoted

_SHIPPED = files("kvtune.presets") / "published"


def preset_names() -> list[str]:
    """Names of the presets that ship with kvtune: the settings that the papers publish, by model family."""
    return sorted(entry.name.removesuffix(".json") for entry in _SHIPPED.iterdir() if entry.name.endswith(".json"))


def load_preset(name: str | Path) -> Preset:
    """Load a preset.

    Parameters
    ----------
    name
        The name of a preset that ships with kvtune (:func:`preset_names`), or the path of a JSON file that
        ``kvtune export`` wrote.

    Raises
    ------
    RequestError
        If there is no such preset, the file is not JSON, a key is unknown, missing or wrong, or the method does not
        take the parameters.
    """
    if isinstance(name, str) and name in preset_names():
        return _read(Path(str(_SHIPPED / f"{name}.json")))
    path = check_path(name)
    if not path.exists() and path.suffix != ".json":
        hint = did_you_mean(str(name), preset_names())
        raise RequestError(
            f"there is no preset {quoted(name)}{hint or ';'} name one of {', '.join(preset_names())}, "
            "or the path of a file that kvtune export wrote"
        )
    return _read(path)


def _read(path: Path) -> Preset:
    data: Any = read_json(path, "preset")
    known = get_args(SchemaVersion)
    if isinstance(data, dict) and data.get("schema_version", known[0]) not in known:
        raise RequestError(
            f"preset {path} has schema_version {quoted(data['schema_version'])}; this kvtune reads "
            f"{' and '.join(map(str, known))}: update kvtune, or export the preset again"
        )
    preset = validated(Preset, data, f"preset {path}")
    try:
        preset.method()
    except RequestError as error:
        raise RequestError(f"preset {path}: {error}") from None
    return preset
