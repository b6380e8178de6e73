"""What a study found, as plain data: the only thing that reports and exports read."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from kvtune.analysis.result import Difference
from kvtune.chair import Rates, Scores
from kvtune.chair.notes import Note
from kvtune.presets import SubsetInfo
from kvtune.statistics.confidence import Interval
from kvtune.statistics.front import Point
from kvtune.statistics.hypervolume import HypervolumeEstimate
from kvtune.study.trials import State

if TYPE_CHECKING:
    from kvtune.analysis.result import Validation


@dataclass(frozen=True)
class Length:
    """What could make CHAIR_S fall without fewer things being seen wrongly: short captions, or ones that repeat.

    Attributes
    ----------
    at_limit
        Share of captions that hit the token limit, percent.
    distinct
        distinct-n for n = 1, 2, 3: different n-grams of all n-grams of a caption, the mean over captions, 0 to 1
        (Li et al., 2016, NAACL). Near 1 for fluent text at n = 3; repetition pulls it down.
    cut_chair_s, cut_f1
        Of the baseline's captions cut to as many words, in percent; see :class:`CutBaseline`. None for the baseline.
    flag
        Why the trial does not beat the cut baseline; None where it does.
    """

    at_limit: float
    distinct: tuple[float, float, float]
    cut_chair_s: float | None = None
    cut_f1: float | None = None
    flag: str | None = None


@dataclass(frozen=True, kw_only=True)
class CutBaseline(Rates):
    """The baseline's captions cut to their first ``sentences`` sentences, scored on the same images."""

    sentences: int


@dataclass(frozen=True)
class TrialSummary:
    """One judged setting, or the baseline.

    Attributes
    ----------
    number
        Trial number; None for the baseline.
    params
        The method's parameters; empty for the baseline.
    scores
        None while no image has been judged.
    images
        Tune images judged so far.
    published
        True for the family's published preset (trial 0 where there is one).
    intervals
        95 % intervals by metric name, where they were computed.
    differences
        By metric name, where they were computed; empty for the baseline.
    ties
        For a trial on the front, numbers of those on it that it is tied with: the paired 95 % intervals of the
        differences in CHAIR_S and in F1 both contain 0.
    length
        Length and repetition, where they were looked at.
    raced_out_by
        For a raced trial, the number of the trial that dominates it; its scores are over its ``images`` alone.
    below_floor
        Metrics that are below the study's floors; such a trial is not on the front and not exported.
    notes
        What makes its captions implausible (:mod:`kvtune.chair.notes`), where they were looked at.
    """

    number: int | None
    params: dict[str, Any]
    scores: Scores | None
    images: int
    state: State
    published: bool = False
    intervals: dict[str, Interval] = field(default_factory=dict)
    differences: dict[str, Difference] = field(default_factory=dict)
    ties: tuple[int, ...] = ()
    length: Length | None = None
    raced_out_by: int | None = None
    below_floor: tuple[str, ...] = ()
    notes: tuple[Note, ...] = ()

    @property
    def point(self) -> Point | None:
        """(CHAIR_S, F1) in percent; None while no image has been judged."""
        return None if self.scores is None else (self.scores.chair_s, self.scores.f1)

    def rate(self, name: str) -> float | None:
        """A metric by its name; None while no image has been judged."""
        return None if self.scores is None else self.scores[name]


@dataclass(frozen=True)
class StudySummary:
    """A study as ``kvtune pareto --json`` prints it.

    Attributes
    ----------
    subset
        The tune subset.
    baseline
        The same model on the same images with no method; None until it is judged.
    trials
        By number.
    front
        Numbers of the non-dominated complete trials that are not below a floor, by rising CHAIR_S.
    hypervolume
        Percent of the box from the reference point to (0, 100); None without a baseline.
    reference_point
        ``{"chair_s", "f1"}``: the baseline's CHAIR_S + 5 points and F1 - 10 points.
    hypervolume_estimate
        How sure the hypervolume is, and how much of it is luck; None where it was not computed.
    cut_baseline
        The baseline's captions cut to 1, 2, 3, ... sentences (KVSmooth's figure 4), the whole ones last; empty where
        they were not scored.
    validation
        What ``kvtune validate`` found on held-out images, as far as it is of these trials, images and this scorer; None
        where nothing was validated or nobody looked.
    race_confidence
        With which trials are raced; None where they are not.
    in_use
        Whether a process writes the study; running trials of one that nobody writes are those that the next search goes
        on with.
    floors
        The least ``f1`` (percent) and ``mean_words`` that a trial on the front must have, where one was asked for.
    """

    study: str
    model: str
    method: str
    subset: SubsetInfo
    baseline: TrialSummary | None
    trials: list[TrialSummary]
    front: list[int]
    hypervolume: float | None
    reference_point: dict[str, float] | None
    hypervolume_estimate: HypervolumeEstimate | None = None
    cut_baseline: list[CutBaseline] = field(default_factory=list)
    validation: "Validation | None" = None
    race_confidence: float | None = None
    floors: dict[str, float] = field(default_factory=dict)
    in_use: bool = False

    @property
    def in_work(self) -> int:
        """Trials without an outcome yet."""
        return sum(trial.state == "running" for trial in self.trials)

    @property
    def finished(self) -> int:
        """Trials that count for ``--trials``: complete or raced out."""
        return sum(trial.state in ("complete", "raced") for trial in self.trials)

    @property
    def settings(self) -> list[TrialSummary]:
        """The baseline, once it is judged, and all trials by number."""
        return [*([self.baseline] if self.baseline else []), *self.trials]

    @property
    def by_number(self) -> dict[int | None, TrialSummary]:
        """All trials, and under None the baseline, once it is judged."""
        return {setting.number: setting for setting in self.settings}

    @property
    def varying_parameters(self) -> list[str]:
        """The parameters that differ between trials, in their own order; all of them for a single trial."""
        names = list(dict.fromkeys(name for trial in self.trials for name in trial.params))
        different = [name for name in names if len({repr(trial.params.get(name)) for trial in self.trials}) > 1]
        return different or names

    @property
    def shared_parameters(self) -> dict[str, Any]:
        """The parameters that all trials share, as :attr:`varying_parameters` leaves them out."""
        varying = self.varying_parameters
        return {name: value for trial in self.trials[:1] for name, value in trial.params.items() if name not in varying}

    @property
    def notes(self) -> list[tuple[int | None, Note]]:
        """What makes captions implausible, with the trial's number; None is the baseline."""
        return [(setting.number, note) for setting in self.settings for note in setting.notes]
