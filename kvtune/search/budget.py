"""The captions that a search has before it, and what they will cost."""

from collections.abc import Collection
from datetime import timedelta

from kvtune.search.race import FirstImages
from kvtune.statistics.racing import Race
from kvtune.study.caption_log import count_captions, read_captions
from kvtune.study.manifest import Manifest
from kvtune.study.pace import Pace
from kvtune.study.study_folder import StudyFolder
from kvtune.study.trials import Ledger

_RACED_SHARE = 0.85
"""Share of the images that trials in a race see on average, before any of this study has been in one: a quarter of them
is stopped, after half of the images."""

_KNOWN_TRIALS = 8
"""Trials that this counts for beside those of the study."""


class Budget:
    """What is to come until a study holds so many finished trials.

    Parameters
    ----------
    folder, manifest, ledger
        The study; the ledger changes while it is searched.
    pace
        Is told how long captions will be, and what comes after the trials at work.
    trials
        Finished trials that are wanted.
    lost
        Captions of judged trials that are to be written again.

    Attributes
    ----------
    to_come
        Captions that are still to be written, if no trial fails and no further one is raced out.
    """

    def __init__(
        self, folder: StudyFolder, manifest: Manifest, ledger: Ledger, pace: Pace, trials: int, lost: int
    ) -> None:
        self._ledger, self._pace, self._trials = ledger, pace, trials
        self._images = len(manifest.tune.image_ids)
        self._round, self._raced = manifest.fingerprint.parallel_trials, manifest.race is not None
        self._block = next(iter(Race.of(self._images).looks), self._images)
        self._written, self._told = 0, False
        pending = [trial for trial in ledger.settings if trial.state == "running"]
        begun = sum(count_captions(folder.trial_captions(trial.number)) for trial in pending)
        unasked = max(0, trials - ledger.finished - len(ledger.running))
        self.to_come = (len(pending) + unasked) * self._images - begun + lost
        if ledger.baseline.metrics is not None:  # captions to come are about as long as its
            pace.expect([line["tokens"] for line in read_captions(folder.trial_captions(None)).values()])

    def caption(self, first: FirstImages) -> str | None:
        """Count a caption; the estimate in words, once a block of images is captioned without a gap.

        Captions finish when they are short, so those of whole blocks alone say how long captions are.
        """
        self.to_come -= 1
        self._written += 1
        if self._told or self._written < self._block or first.advance() < self._block:
            return None
        self._told = True
        tokens = sum(first.log[image_id]["tokens"] for image_id in first.order[: self._block]) / self._block
        return f"after {self._written} captions: {cost(self.to_come, tokens, self._pace.seconds_left(), self._raced)}"

    def spare(self, captions: int) -> None:
        """So many captions will not be written, because their trial was raced out."""
        self.to_come -= captions
        self._pace.spare(captions)

    def look_ahead(self, at_work: Collection[int | None]) -> None:
        """Tell the pace what comes after the trials at work, as long as they are known to be in a race."""
        later = max(0, self._trials - self._ledger.finished - sum(number is not None for number in at_work))
        share = 1.0
        if self._raced:
            raced = [trial.metrics for trial in self._ledger.trials[self._round :] if trial.metrics is not None]
            shares = [metrics["images"] / self._images for metrics in raced]
            share = (_KNOWN_TRIALS * _RACED_SHARE + sum(shares)) / (_KNOWN_TRIALS + len(shares))
        first_round = max(0, min(later, self._round - len(self._ledger.trials))) if None in at_work else 0
        captions = self._images * (first_round + share * (later - first_round))
        self._pace.ahead(captions, min(self._round, later), self._images)


def cost(captions: int, tokens_each: float, seconds: float | None, raced: bool) -> str:
    """What so many captions cost, in words; an upper bound where trials are raced, because a race only spares."""
    text = f"{captions:,} captions, {_tokens(captions * tokens_each)}"
    if seconds is not None:
        text += f", {timedelta(seconds=round(seconds))}"
    return f"at most {text} to go; racing spares a part" if raced else f"{text} to go"


def _tokens(count: float) -> str:
    if count >= 1e6:
        return f"{count / 1e6:.1f} million tokens"
    return f"{round(count, -2 if count >= 1e4 else 0):,.0f} tokens"
