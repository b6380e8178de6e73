"""What is fixed about a study, and what is recorded of the machine it ran on."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, StrictInt, field_serializer, field_validator, model_validator

from kvtune.coco import Subset
from kvtune.errors import RequestError
from kvtune.files import read_json, write_json
from kvtune.package_versions import package_versions
from kvtune.schema import Document, Parameters, validated
from kvtune.spaces import SearchSpace
from kvtune.statistics.front import Point
from kvtune.statistics.racing import Race, image_order
from kvtune.study.constraints import Constraints, check_floor, constraints_of
from kvtune.study.sampler_names import SamplerName
from kvtune.study.study_folder import StudyFolder
from kvtune.study.trials import Ledger, Trial
from kvtune.text import command_line, json_text, quoted

FORMAT: Literal["kvtune-study/1"] = "kvtune-study/1"
_LONGEST_SHOWN = 120


def _floor(text: str) -> str:
    try:
        return check_floor(text)
    except RequestError as error:
        raise ValueError(str(error)) from None


Floor = Annotated[str, AfterValidator(_floor)]


class Fingerprint(Document):
    """Everything that a trial's scores or a study's trials depend on: one study has one of these.

    ``subset`` is the sha256 of the tune images' ids, ``dtype`` the weights' type by its torch name.
    ``race_confidence`` is null where trials are not raced; ``min_f1`` and ``min_words`` are floors as
    :func:`kvtune.study.constraints.check_floor` returns them, null for none.
    """

    model: str
    revision: str | None
    prompt: str
    max_new_tokens: int = Field(ge=1)
    subset: str
    method: str
    dtype: str
    seed: int
    sampler: SamplerName
    parallel_trials: int = Field(ge=1)
    space: SearchSpace
    race_confidence: float | None = Field(default=None, gt=0, lt=1)
    min_f1: Floor | None = None
    min_words: Floor | None = None


class Published(Document):
    """A setting published for the model: its preset's name or the model's, its parameters, whether it is a first trial.

    ``source`` is where a method's authors publish it; null for a preset that ships.
    """

    name: str
    parameters: Parameters
    enqueued: bool
    source: str | None = None


class StartPoint(Document):
    """A setting taken over from another study: its trial there, and its place in this study's space."""

    trial: int
    point: dict[str, int | float | str]


class EnqueuedPoint(Document):
    """A setting that ``--enqueue`` asked for: the number of the trial that it is, its place in the space."""

    trial: int
    point: dict[str, int | float | str]


class Start(Document):
    """The front of another study, which this one tries first; kept here, so the other may change or go."""

    study: str
    study_id: str
    points: list[StartPoint]


class ReferencePoint(Document):
    """From where the hypervolume is measured, in percent; see :func:`kvtune.statistics.front.reference_point`."""

    chair_s: float
    f1: float

    @property
    def point(self) -> Point:
        """(CHAIR_S, F1)."""
        return self.chair_s, self.f1


class Manifest(Document):
    """``study.json``.

    ``id`` tells studies of one name apart; ``model``, ``family`` and ``layers`` describe the model; ``tune`` and
    ``holdout`` are the subsets whole; ``published`` has what is published for the model, of each alternative one;
    ``reference_point`` is there once the baseline is judged. ``looks`` are the numbers of images after which a trial
    may be raced out, empty for no race; ``start`` is what ``--from`` brought, null for nothing, ``enqueued`` what
    ``--enqueue`` did. ``coco``, ``versions``, ``device``, ``lanes`` and ``scorer`` are those of the last ``kvtune
    search`` and free to change.
    """

    format: Literal["kvtune-study/1"]
    id: str
    created: str
    fingerprint: Fingerprint
    model: str
    family: str
    layers: int = Field(ge=1)
    published: list[Published]
    tune: Subset
    holdout: Subset
    coco: str
    versions: dict[str, str]
    device: str
    lanes: str
    scorer: str
    reference_point: ReferencePoint | None = None
    looks: list[StrictInt] = Field(default_factory=list)
    start: Start | None = None
    enqueued: list[EnqueuedPoint] = Field(default_factory=list)

    @field_validator("published", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """On disk a single one is no list, and none is null."""
        return value if isinstance(value, list) else [] if value is None else [value]

    @field_serializer("published")
    def _unlisted(self, value: list[Published]) -> Any:
        plain = [each.model_dump(mode="json") for each in value]
        return plain if len(plain) > 1 else next(iter(plain), None)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.looks:
            Race(len(self.tune.image_ids), self.fingerprint.race_confidence or 0.5, tuple(self.looks))
        return self

    @property
    def image_order(self) -> list[int]:
        """The tune images in the order in which trials see them: random, fixed by the seed."""
        return image_order(self.tune.image_ids, self.fingerprint.seed)

    def judged_images(self, trial: Trial) -> list[int]:
        """The tune images that a trial's scores are over: all, or for a raced trial the first of the race."""
        if trial.state == "raced" and trial.metrics is not None:
            return self.image_order[: trial.metrics["images"]]
        return list(self.tune.image_ids)

    @property
    def race(self) -> Race | None:
        """How trials are raced; None where they are not."""
        confidence = self.fingerprint.race_confidence
        if confidence is None or not self.looks:
            return None
        return Race(len(self.tune.image_ids), confidence, tuple(self.looks))

    def constraints(self, baseline: Trial) -> Constraints:
        """What a trial must meet to be on the front; floors are known once the baseline is judged."""
        begun = self.fingerprint
        return constraints_of(self.race is not None, begun.min_f1, begun.min_words, baseline)

    def save(self, folder: StudyFolder) -> None:
        """Write the manifest.

        Raises
        ------
        KvtuneError
            If the file cannot be written.
        """
        write_json(folder.manifest, self.model_dump(mode="json"))


def load_manifest(folder: StudyFolder) -> Manifest:
    """Read a study's manifest.

    Raises
    ------
    RequestError
        If it cannot be read or a key is unknown, missing or wrong.
    """
    return validated(Manifest, read_json(folder.manifest, "study"), f"study {folder.manifest}")


def load_trials(folder: StudyFolder, manifest: Manifest) -> Ledger:
    """Read a study's trials.

    Raises
    ------
    KvtuneError
        If they cannot be read.
    RequestError
        If one is not of this study's space and images.
    """
    ledger = Ledger(folder.ledger)
    check_trials(ledger, manifest)
    return ledger


def check_trials(ledger: Ledger, manifest: Manifest) -> None:
    """Check that trials are of a study's space and images.

    Raises
    ------
    RequestError
        If one is not; the message names it.
    """
    images = len(manifest.tune.image_ids)
    for trial in [ledger.baseline, *ledger.trials]:
        name = "the baseline" if trial.number is None else f"trial {trial.number}"
        try:
            if trial.number is not None:
                _check_setting(trial.params, manifest.fingerprint.space)
        except RequestError as error:
            raise RequestError(f"{ledger.path}: {name}: {error}") from None
        if trial.metrics is not None and trial.metrics["images"] > images:
            raise RequestError(
                f"{ledger.path}: {name} has {trial.metrics['images']} images, and the study has {images}"
            )


def _check_setting(setting: dict[str, Any], space: SearchSpace) -> None:
    for parameter in space.searched(setting):
        value = setting.get(parameter)
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise RequestError(f"there must be a number for {quoted(parameter)}, not {quoted(value)}")
    space.method_of(setting)


_OPTIONS = {
    "model": "--model", "revision": "--revision", "prompt": "--prompt", "max_new_tokens": "--max-new-tokens",
    "subset": "--images, --subset and --seed", "method": "--method", "dtype": "--dtype", "seed": "--seed",
    "sampler": "--sampler", "parallel_trials": "--parallel-trials", "space": "--space",
    "race_confidence": "--race-confidence or --no-race", "min_f1": "--min-f1", "min_words": "--min-words",
}  # fmt: skip
"""The option that each part of a fingerprint comes from."""


def refuse_difference(
    folder: StudyFolder, begun: Fingerprint, now: dict[str, Any], words: Mapping[str, tuple[str, str]] | None = None
) -> None:
    """Check that a command would continue a study as it was begun.

    Parameters
    ----------
    now
        A fingerprint's fields as plain data, or those of them that are known yet.
    words
        By field, what the study and the command have in words, where the values say nothing to a person.

    Raises
    ------
    RequestError
        If one differs; the message says what to give, and names the first that differs with both values.
    """
    before = begun.model_dump(mode="json")
    for field in (name for name in before if name in now):
        found = first_difference({field: before[field]}, {field: now[field]})
        if found is None:
            continue
        if words and field in words:
            found = f"{words[field][0]}, but this command has {words[field][1]}"
        value = before[field]
        if field == "dtype":  # quantization is a part of it
            value, _, bits = value.partition("-")
        plain = isinstance(value, str | int) and field != "subset"
        option = f"{_OPTIONS[field]} {command_line([str(value)])}" if plain else f"{_OPTIONS[field]} as it was begun"
        if field == "dtype" and bits:
            option += f" --load-in-{bits}"
        if value is None:
            option = f"no {_OPTIONS[field]}"
        raise RequestError(f"give {option}, or another --study name: study {folder.name} was begun with {found}")


def first_difference(begun: dict[str, Any], now: dict[str, Any]) -> str | None:
    """The first value that differs, as in ``seed 0, but this command has 1``; None where none does."""
    before, after = _flat(begun), _flat(now)
    for key in [*before, *after]:
        if before.get(key) != after.get(key):
            return f"{key} {_shown(before.get(key))}, but this command has {_shown(after.get(key))}"
    return None


def versions() -> dict[str, str]:
    """Versions of kvtune and of the packages that captions and trials depend on."""
    return package_versions("torch", "transformers", "optuna", "numpy")


def _flat(data: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested dictionaries as one: ``{"space": {"method": "x"}}`` becomes ``{"space.method": "x"}``."""
    flat: dict[str, Any] = {}
    for key, value in data.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _shown(value: Any) -> str:
    text = "none" if value is None else json_text(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN // 2]}...{text[-_LONGEST_SHOWN // 4 :]}"
