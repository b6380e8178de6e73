"""What ``kvtune search`` is asked for, and what of it can be refused at once."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kvtune.errors import RequestError, check_count
from kvtune.methods import Alternatives
from kvtune.models.options import ModelOptions, parse_lanes
from kvtune.statistics.confidence import RACE_CONFIDENCE
from kvtune.study import search_defaults
from kvtune.study.constraints import FLOORS, check_floor
from kvtune.study.search_defaults import SAMPLERS, SamplerName
from kvtune.study.study_folder import DEFAULT_STUDIES, StudyFolder, check_name, default_name
from kvtune.text import not_there, quoted


@dataclass(frozen=True)
class SearchOptions:
    """What ``kvtune search`` was asked for; None is the default of the model, family or data."""

    model: ModelOptions
    method: str = search_defaults.METHOD
    space: Path | None = None
    trials: int = search_defaults.TRIALS
    study: str | None = None
    studies_dir: Path = DEFAULT_STUDIES
    coco: Path | None = None
    subset: str | None = None
    images: int | None = None
    holdout_images: int | None = None
    prompt: str | None = None
    max_new_tokens: int = search_defaults.MAX_NEW_TOKENS
    depth: str | None = None
    sampler: SamplerName = search_defaults.SAMPLER
    parallel_trials: int = search_defaults.PARALLEL_TRIALS
    seed: int = 0
    storage: str | None = None
    race_confidence: float | None = RACE_CONFIDENCE
    min_f1: str | None = None
    min_words: str | None = None
    start_from: str | None = None
    enqueue: Sequence[str] = ()


def check_options(options: SearchOptions) -> StudyFolder:
    """Check what can be checked at once; where the study is to be."""
    Alternatives.of(options.method)
    if options.sampler not in SAMPLERS:
        raise RequestError(not_there("sampler", options.sampler, SAMPLERS))
    for name in ("trials", "parallel_trials", "max_new_tokens"):
        check_count(f"--{name.replace('_', '-')}", getattr(options, name))
    if options.subset is not None and options.images is not None:
        raise RequestError("--subset says which images to tune on and --images how many to draw; give one of the two")
    if isinstance(options.enqueue, str):  # a sequence of letters, from Python
        raise RequestError(f"enqueue takes a list of settings, not {quoted(options.enqueue)}")
    if options.race_confidence is not None and not 0 < options.race_confidence < 1:
        raise RequestError(f"--race-confidence must be between 0 and 1, not {options.race_confidence:g}")
    floors(options)
    if options.seed < 0:
        raise RequestError(f"--seed must be at least 0, not {options.seed}")
    parse_lanes(options.model.engine.lanes)
    name = check_name(options.study) if options.study is not None else default_name(options.model.name, options.method)
    parent = options.studies_dir.absolute()
    existing = next(folder for folder in (parent, *parent.parents) if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        raise RequestError(f"cannot write studies in {options.studies_dir}; make it writable or name --studies-dir")
    return StudyFolder(options.studies_dir / name)


def known_fingerprint(options: SearchOptions) -> dict[str, Any]:
    """What of the fingerprint is known before data and model are looked at."""
    as_they_are = ("seed", "sampler", "max_new_tokens", "parallel_trials", "race_confidence")
    known: dict[str, Any] = {name: getattr(options, name) for name in as_they_are}
    known |= {"method": str(Alternatives.of(options.method))} | floors(options)
    return known if options.prompt is None else known | {"prompt": options.prompt}


def floors(options: SearchOptions) -> dict[str, str | None]:
    """The floors of a fingerprint that the options ask for."""
    given = {name: getattr(options, name) for name in FLOORS.values()}
    found = {name: None if text is None else check_floor(str(text)) for name, text in given.items()}
    f1 = found["min_f1"]
    if f1 is not None and not f1.startswith("baseline") and float(f1) > 100:
        raise RequestError(f"--min-f1 {f1}: F1 is at most 100; write a number (72), baseline, or baseline-2")
    return found
