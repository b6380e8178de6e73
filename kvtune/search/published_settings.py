"""The settings published for a model, which a search tries first where they are in its space."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from kvtune.methods import get_method
from kvtune.search.view import View
from kvtune.spaces import SearchSpace
from kvtune.study.manifest import Published

if TYPE_CHECKING:
    from kvtune.models.model_facts import AnyModel


def published_settings(space: SearchSpace, vlm: "AnyModel") -> list[Published]:
    """The settings published for this very model, one of each alternative at most, to be the first trials where they
    are points of the space."""
    found = []
    for name in space.parts:
        if (published := _published_of(name, vlm)) is not None:
            parameters = space.alternatives.here(name, published.parameters)
            enqueued = space.point(parameters) is not None
            found.append(published.model_copy(update={"parameters": parameters, "enqueued": enqueued}))
    return found


def _published_of(method_name: str, vlm: "AnyModel") -> Published | None:
    """That of the preset that ships, or the one that the method declares."""
    from kvtune.presets import load_preset

    if vlm.published_preset is not None:
        preset = load_preset(vlm.published_preset)
        if preset.method_name == method_name and preset.model.layers == vlm.n_layers:
            return Published(name=preset.name, parameters=preset.method().parameters(), enqueued=False)
    kind = get_method(method_name)
    declared = kind.published_for(vlm.name, vlm.n_layers)
    if declared is None:
        return None
    parameters = kind.from_parameters(declared.parameters).parameters()
    return Published(name=declared.model, parameters=parameters, enqueued=False, source=declared.source)


def tell_of(published: Sequence[Published], view: View) -> None:
    """Say which of the published settings are trials, from trial 0 on, and which are not."""
    number = 0
    for each in published:
        if each.source is not None and each.enqueued:
            view.note(f"trial {number} is the setting published for {each.name}: {each.source}")
        elif each.source is not None:
            view.note(
                f"the setting published for {each.name} ({each.source}) is not in the search space and is no trial"
            )
        elif not each.enqueued:
            view.note(f"the published preset {each.name} is not in the search space and is no trial")
        number += each.enqueued
