"""What is fixed about a study, and what is recorded of the machine it ran on."""

from typing import Any, Literal, Self, get_args

from pydantic import Field, StrictInt, field_serializer, field_validator, model_validator

from kvtune.coco import Subset
from kvtune.coco.subset import shuffled
from kvtune.errors import RequestError
from kvtune.json_files import parse_json, read_text
from kvtune.package_versions import package_versions
from kvtune.schema import Document, Parameters, validated
from kvtune.spaces import SearchSpace
from kvtune.statistics.front import Point
from kvtune.statistics.racing import Race
from kvtune.study.constraints import FLOORS, Constraints, constraints_of
from kvtune.study.fingerprint import Fingerprint
from kvtune.study.study_folder import StudyFolder
from kvtune.study.trials import RESTORE, Ledger, Trial
from kvtune.text import quoted

Format = Literal["kvtune-study/1"]
FORMAT: Format = get_args(Format)[0]


class Published(Document):
    """A setting published for the model: its preset's name or the model's, its parameters, whether it is a first trial.

    ``source`` is where a method's authors publish it; null for a preset that ships.
    """

    name: str
    parameters: Parameters
    enqueued: bool
    source: str | None = None


class TrialPoint(Document):
    """A setting, as a place in this study's space, and the number of its trial: in the study that it was taken over
    from, or of one that ``--enqueue`` asked for in this one."""

    trial: int
    point: dict[str, int | float | str]


class Start(Document):
    """The front of another study, which this one tries first; kept here, so the other may change or go."""

    study: str
    study_id: str
    points: list[TrialPoint]


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

    format: Format
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
    enqueued: list[TrialPoint] = Field(default_factory=list)

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
        return shuffled(self.tune.image_ids, self.fingerprint.seed)

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
        floors = {metric: getattr(self.fingerprint, name) for metric, name in FLOORS.items()}
        return constraints_of(self.race is not None, floors, baseline)


def load_manifest(folder: StudyFolder) -> Manifest:
    """Read a study's manifest.

    Raises
    ------
    RequestError
        If it cannot be read or a key is unknown, missing or wrong.
    """
    text = read_text(folder.manifest, "study")
    try:
        document = parse_json(text, f"study file {folder.manifest}")
    except RequestError as error:
        raise RequestError(f"{error}; {RESTORE}") from None
    return validated(Manifest, document, f"study {folder.manifest}")


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
    for trial in ledger.settings:
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


def versions() -> dict[str, str]:
    """Versions of kvtune and of the packages that captions and trials depend on."""
    return package_versions("torch", "transformers", "optuna", "numpy")
