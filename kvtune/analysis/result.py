"""A setting's result on one subset, its difference to the baseline, and the document of a validation."""

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from pydantic import Field, JsonValue

from kvtune.chair import Scores
from kvtune.presets import SubsetInfo
from kvtune.schema import Document, Parameters
from kvtune.statistics.confidence import Interval

Format = Literal["kvtune-validation/1"]
FORMAT: Format = get_args(Format)[0]


@dataclass(frozen=True)
class Difference:
    """A rate of a trial minus the baseline's, on the same images.

    Attributes
    ----------
    value
        Percentage points; words for ``mean_words``.
    interval
        95 %: Bonett and Price's for CHAIR_S, the paired bootstrap's for the others.
    p_value
        Two-sided, of no difference: McNemar's exact test for CHAIR_S, the paired randomisation test for the others.
    p_adjusted
        After Holm's adjustment over all settings that were tried on these images, those of a study that were raced out
        among them.
    """

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False}

    value: float
    interval: Interval
    p_value: float
    p_adjusted: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval does not contain 0 and the adjusted p-value is below 0.05.

        Both, because with few images an interval is narrower than the exact tests allow, and because it knows nothing
        of how many settings were compared.
        """
        return not self.interval[0] <= 0 <= self.interval[1] and self.p_adjusted < 0.05


class Result(Document):
    """One setting on one subset: scores in percent, 95 % intervals, differences to the baseline (none for itself).

    On held-out images p-values are adjusted (Holm) over the settings that were validated, on tune images over all
    trials.
    """

    metrics: Scores
    intervals: dict[str, Interval]
    differences: dict[str, Difference]


class Validated(Document):
    """A setting that was validated.

    ``number`` is null for the baseline and for a published preset that is no trial; ``roles`` are ``baseline``,
    ``published``, ``front``; ``tune`` is null for what was never judged on tune images. ``shrinkage`` is, by metric,
    the difference to the baseline on held-out images minus that on tune images: what choosing on the tune images had
    added to the difference by luck, give or take the sampling of both. ``same_captions`` are the trials of the front
    that stand for this one's point, for they wrote the same captions on the tune images, and were not captioned again.
    """

    name: str
    number: int | None
    roles: list[Literal["baseline", "published", "front"]]
    params: Parameters
    tune: Result | None
    holdout: Result
    shrinkage: dict[str, float]
    same_captions: list[int] = Field(default_factory=list)


class Validation(Document):
    """The whole file. ``scoring`` identifies scorer and ground truth, ``study_id`` the study that was searched."""

    format: Format
    study: str
    study_id: str
    scoring: str
    subset: SubsetInfo
    tune_subset: SubsetInfo
    statistics: dict[str, JsonValue]
    settings: list[Validated]

    def of(self, number: int | None) -> Validated | None:
        """The trial of that number; None for the baseline's is the baseline."""
        for setting in self.settings:
            if setting.number == number and ("baseline" in setting.roles) == (number is None):
                return setting
        return None
