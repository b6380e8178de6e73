"""The methods there are, as data: when each acts, its parameters, the settings that are published."""

import dataclasses
import inspect
from typing import Any

from kvtune.methods import Method, get_method, method_names
from kvtune.presets import load_preset, preset_names


def method_documents() -> list[dict[str, Any]]:
    """Return what ``kvtune methods --json`` prints, a method each by name.

    Keys
    ----
    name, description, acts_from
        ``acts_from`` is ``generated``, ``last_prompt_token`` or ``after_image``.
    parameters
        ``name``, ``kind``, ``default`` (null where there is none), ``low`` and ``high`` that the method takes (null for
        no bound), ``choices``, and ``search``: ``low``, ``high``, ``step`` and ``log`` of the range that is searched by
        default, null where the parameter is held. Ranges of layers follow from the model: ``layer_split`` is the share
        of its layers below which a first layer is searched, and from which on a last one.
    published
        ``model``, ``parameters``, ``source``.
    """
    return [_document(get_method(name)) for name in method_names()]


def _document(method: type[Method]) -> dict[str, Any]:
    defaults = method.known_for(())
    parameters = []
    for name, declared in method.declared().items():
        search = None
        if declared.search is not None:
            low, high, step = declared.search
            search = {"low": low, "high": high, "step": step, "log": declared.log}
        parameters.append(
            {"name": name, "kind": declared.kind, "default": defaults.get(name), "low": declared.low}
            | {"high": declared.high, "choices": list(declared.choices), "search": search}
            | {"layer_split": declared.layer_split if declared.kind in ("start_layer", "end_layer") else None}
        )
    return {
        "name": method.name,
        "description": (inspect.getdoc(method) or "").partition("\n")[0],
        "acts_from": method.acts_from,
        "parameters": parameters,
        "published": [dataclasses.asdict(one) for one in method.published] + _presets(method.name),
    }


def _presets(method: str) -> list[dict[str, Any]]:
    presets = [load_preset(name) for name in preset_names()]
    return [
        {"model": preset.name, "parameters": preset.parameters, "source": f"the preset {preset.name} that ships"}
        for preset in presets
        if preset.method_name == method
    ]
