"""What a reproduction keeps on disk beside its captions, and what it finds."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field

from kvtune.analysis.result import Result
from kvtune.chair import Scores
from kvtune.coco import Subset
from kvtune.presets import SubsetInfo
from kvtune.reproduce.paper_settings import SettingName, Table
from kvtune.schema import Document
from kvtune.statistics.confidence import Interval

Format = Literal["kvtune-reproduction/1"]
FORMAT: Format = get_args(Format)[0]


@dataclass(frozen=True)
class ModelFolder:
    """The files of one model: captions that all tables share, and a result for each table."""

    path: Path

    @property
    def manifest(self) -> Path:
        """What the captions depend on; see :class:`Reproduction`."""
        return self.path / "reproduction.json"

    @property
    def ground_truth(self) -> Path:
        """Objects in the images, so that scoring again needs no COCO."""
        return self.path / "ground_truth.json"

    def captions(self, name: SettingName, factor: float) -> Path:
        """The caption file of a row; ``factor`` is the constant one's."""
        stem = f"constant-{factor}" if name == "constant" else name.replace("_", "-")
        return self.path / "captions" / f"{stem}.jsonl"

    def tune_captions(self, factor: float) -> Path:
        """The caption file of a constant factor on the tune images."""
        return self.path / "captions" / "tune" / f"constant-{factor}.jsonl"


class ReproductionFingerprint(Document):
    """Everything that the captions depend on; ``reporting`` is the subset's sha256, ``model`` a Hub id or a path."""

    model: str
    revision: str | None
    dtype: str
    prompt: str
    max_new_tokens: int = Field(ge=1)
    reporting: str


class Reproduction(Document):
    """``reproduction.json``.

    ``tune`` is the subset of most images so far: a smaller one is its beginning. ``coco``, ``versions``, ``device`` and
    ``lanes`` are those of the last run and free to change.
    """

    format: Format
    created: str
    fingerprint: ReproductionFingerprint
    family: str
    layers: int
    tune: Subset
    coco: str
    versions: dict[str, str]
    device: str
    lanes: str


def load_reproduction(folder: ModelFolder) -> Reproduction | None:
    """Read a model's manifest; None where nothing was begun.

    Raises
    ------
    RequestError
        If it cannot be read or a key is unknown, missing or wrong.
    """
    if not folder.manifest.exists():
        return None
    return Reproduction.read(folder.manifest, "reproduction")


class FactorPoint(Document):
    """A constant factor on the tune images; scores in percent with their 95 % intervals."""

    factor: float
    metrics: Scores
    intervals: dict[str, Interval]


class FactorSweep(Document):
    """How the constant factor was chosen: that with the highest F1 on the tune images."""

    chosen: float
    subset: SubsetInfo
    points: list[FactorPoint]


class SettingResult(Document):
    """A row: ``params`` is empty for no method; differences are to ``baseline``, p-values adjusted over the rows."""

    name: SettingName
    prompt: str
    params: dict[str, Any]
    result: Result


class ModelResult(Document):
    """One model's part of a table.

    ``paper_model`` says whether the model has the family and the layers of the paper's, so that its numbers may stand
    beside; ``whole`` whether all images of the reporting set were used. ``subset`` has their name, digest and number.
    """

    table: Table
    model: str
    id: str
    revision: str | None
    family: str
    layers: int
    dtype: str
    paper_model: bool
    max_new_tokens: int
    subset: SubsetInfo
    whole: bool
    scoring: str
    statistics: dict[str, Any]
    constant: FactorSweep
    settings: list[SettingResult]

    def setting(self, name: SettingName) -> SettingResult | None:
        """A row by its name."""
        return next((setting for setting in self.settings if setting.name == name), None)
