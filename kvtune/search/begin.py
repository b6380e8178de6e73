"""What is fixed when a study begins, and kept when it goes on: its space, fingerprint and manifest."""

import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from kvtune.errors import RequestError
from kvtune.methods import Alternatives, get_method
from kvtune.search.published_settings import published_settings
from kvtune.search.samplers import check_sampler
from kvtune.search.search_options import SearchOptions, floors
from kvtune.spaces import SearchSpace, space_for
from kvtune.statistics.racing import Race
from kvtune.study.fingerprint import Fingerprint, model_in_fingerprint
from kvtune.study.manifest import FORMAT, Manifest, versions
from kvtune.study.scoring import Scoring
from kvtune.study.subsets import Data

if TYPE_CHECKING:
    from kvtune.models.model_facts import AnyModel


def usual_space(method: str, vlm: "AnyModel") -> SearchSpace:
    """The space that a search of a model takes where none is named."""
    return space_for(method, (vlm.name, vlm.family.name), vlm.n_layers).fitted(vlm.n_layers)


def space_of(options: SearchOptions, given: SearchSpace | None, begun: Manifest | None, vlm: "AnyModel") -> SearchSpace:
    """The space: the one that was named, else the study's own, else the one that ships for the model's family."""
    if given is None and begun is not None and begun.layers == vlm.n_layers:
        space = begun.fingerprint.space
    elif given is None:
        space = usual_space(options.method, vlm)
    else:
        if given.alternatives != Alternatives.of(options.method):
            raise RequestError(f"{options.space} is a space of {given.alternatives}, not of --method {options.method}")
        try:
            space = given.fitted(vlm.n_layers)
        except RequestError as error:
            raise RequestError(f"search space {options.space}: {error}") from None
    if options.depth is not None:
        if not any("depth" in get_method(name).declared() for name in space.parts):
            raise RequestError(f"--depth is for methods that use depth, as dscr; {options.method} does not")
        space = space.holding("depth", options.depth)
    check_sampler(options.sampler, space)
    return space


def fingerprint_of(options: SearchOptions, vlm: "AnyModel", data: Data, space: SearchSpace) -> Fingerprint:
    """The fingerprint of a search, now that model and images are known."""
    return Fingerprint(
        model=model_in_fingerprint(vlm.name, vlm.model_id),
        revision=vlm.revision,
        prompt=options.prompt if options.prompt is not None else vlm.default_prompt,
        max_new_tokens=options.max_new_tokens,
        subset=data.tune.sha256,
        method=str(space.alternatives),
        dtype=vlm.dtype_name,
        seed=options.seed,
        sampler=options.sampler,
        parallel_trials=options.parallel_trials,
        space=space,
        race_confidence=options.race_confidence,
        **floors(options),
    )


def manifest_of(
    options: SearchOptions,
    begun: Manifest | None,
    fingerprint: Fingerprint,
    vlm: "AnyModel",
    data: Data,
    scoring: Scoring,
) -> Manifest:
    """The manifest of a study that begins, or of one that goes on where it now does."""
    now: dict[str, Any] = {
        "fingerprint": fingerprint,
        "model": vlm.name,
        "family": vlm.family.name,
        "layers": vlm.n_layers,
        "tune": data.tune,
        "holdout": data.holdout,
        "coco": str(data.folder.root.absolute()),
        "versions": versions(),
        "device": vlm.device_name,
        "lanes": options.model.engine.lanes,
    }
    if begun is not None:
        return begun.model_copy(update=now)
    confidence = fingerprint.race_confidence
    return Manifest(
        format=FORMAT,
        id=uuid.uuid4().hex,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        published=published_settings(fingerprint.space, vlm),
        scorer=scoring.version,
        looks=[] if confidence is None else list(Race.of(len(data.tune.image_ids), confidence).looks),
        **now,
    )
