"""The search itself: the baseline, then rounds of trials until enough are finished."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from typing import Any

from kvtune.errors import KvtuneError
from kvtune.search.captions import CaptionLog, count_captions
from kvtune.search.judging import CaptionWriter, Image, caption_images
from kvtune.search.layout import StudyFolder
from kvtune.search.ledger import LedgerWriter, Trial
from kvtune.search.manifest import Manifest
from kvtune.search.progress import View
from kvtune.search.rescore import put_scores, scores_again, tune_captions, with_reference_point
from kvtune.search.rounds import Plan
from kvtune.search.scoring import Scoring
from kvtune.search.storage import optuna_copy

FAILURES_IN_A_ROW = 3
"""So many failed trials, one after the other, end a search: something is wrong with more than the settings."""


class Search:
    """A study being searched. The caller holds the study's lock.

    Parameters
    ----------
    folder, manifest
        The study; its manifest is on disk already.
    captioner
        Writes the captions.
    images
        The tune images in the order of the subset.
    scoring
        Scores them.
    view
        Shows what happens.
    storage
        URL of an Optuna storage instead of ``study.db``.
    """

    def __init__(
        self,
        folder: StudyFolder,
        manifest: Manifest,
        captioner: CaptionWriter,
        images: Sequence[Image],
        scoring: Scoring,
        view: View,
        storage: str | None = None,
    ) -> None:
        self._folder = folder
        self._manifest = manifest
        self._captioner = captioner
        self._images = images
        self._ids = [image_id for image_id, _ in images]
        self._scoring = scoring
        self._view = view
        self._ledger = LedgerWriter(folder.ledger)
        self._optuna = optuna_copy(folder, manifest, storage)
        fingerprint, published = manifest.fingerprint, manifest.published
        self._plan = Plan(
            fingerprint.space,
            fingerprint.sampler,
            fingerprint.seed,
            fingerprint.parallel_trials,
            published.parameters if published is not None and published.enqueued else None,
        )

    def run(self, trials: int) -> None:
        """Search until the study holds ``trials`` finished trials, or the grid has no more points.

        Raises
        ------
        KvtuneError
            If captioning, a file or the Optuna storage fails; the same call goes on where this one stopped.
        """
        with closing(self._ledger), closing(self._optuna):
            self._same_scores_throughout()
            self._optuna.follow(self._ledger)
            with self._view.showing(self._manifest, self._ledger, self._captions_to_come(trials)):
                if self._ledger.baseline.state == "running":
                    self._judge([self._ledger.baseline])
                self._set_reference_point()
                while self._ledger.finished < trials:
                    running = self._ledger.running or self._ask(trials)
                    if not running:
                        self._view.note(f"the grid has no more points after {self._ledger.finished} trials")
                        break
                    self._judge(running)
                    self._guard_against_failure()

    def _ask(self, trials: int) -> list[Trial]:
        """Ask the next trials, at most to the end of their round."""
        start, size = len(self._ledger.trials), self._plan.size
        stop = min((start // size + 1) * size, start + trials - self._ledger.finished)
        asked = self._plan.trials(self._ledger.trials, start, stop)
        self._ledger.ask(asked)
        self._optuna.add(asked)
        return asked

    def _judge(self, trials: Iterable[Trial]) -> None:
        """Caption the images with these trials together, then score them and tell what came of them, by number."""
        numbers = [trial.number for trial in trials]
        failures: dict[int | None, str] = {}
        with ExitStack() as stack:
            logs = {number: stack.enter_context(closing(self._open_log(number))) for number in numbers}
            unfinished = {number: self._method(number) for number in numbers if not logs[number].has_all(self._ids)}
            if unfinished:
                for number in unfinished:
                    self._view.started(number, len(logs[number]))
                failures = caption_images(self._captioner, self._images, unfinished, logs, self._view.caption)
        for number in numbers:
            if number is not None and number in failures:
                ended = self._ledger.fail(number, failures[number])
            else:
                metrics = self._scoring.score(tune_captions(self._folder, number, self._ids))
                ended = self._ledger.complete(number, metrics, self._scoring.identity)
            if number is None:
                self._optuna.describe(ended)
            else:
                self._optuna.finish(ended)
            self._view.ended(ended)

    def _open_log(self, number: int | None) -> CaptionLog:
        path = self._folder.trial_captions(number)
        opened = CaptionLog(path)
        strange = set(opened.image_ids) - set(self._ids)
        if strange:
            opened.close()
            raise KvtuneError(f"{path} has a caption of image {min(strange)}, which is no tune image; remove that line")
        return opened

    def _method(self, number: int | None) -> Any:
        from kvtune.methods import get_method

        if number is None:
            return None
        return get_method(self._manifest.fingerprint.method).from_parameters(self._ledger[number].params)

    def _same_scores_throughout(self) -> None:
        """Score again what another scorer, or another ground truth, has scored."""
        judged = [trial for trial in [self._ledger.baseline, *self._ledger.trials] if trial.state == "complete"]
        if any(trial.scoring != self._scoring.identity for trial in judged):
            self._view.note(f"scorer or ground truth changed; scoring {len(judged)} stored settings again")
            scores = scores_again(self._folder, self._ids, self._ledger, self._scoring)
            put_scores(self._ledger, scores, self._scoring)

    def _set_reference_point(self) -> None:
        manifest = with_reference_point(self._manifest, self._ledger.baseline)
        if manifest != self._manifest:
            self._manifest = manifest
            manifest.save(self._folder)

    def _captions_to_come(self, trials: int) -> int:
        """Captions that are to be written until ``trials`` are finished, if none fails."""
        pending = [trial for trial in [self._ledger.baseline, *self._ledger.trials] if trial.state == "running"]
        begun = sum(count_captions(self._folder.trial_captions(trial.number)) for trial in pending)
        asked = len(self._ledger.running)
        unasked = max(0, trials - self._ledger.finished - asked)
        return (len(pending) + unasked) * len(self._ids) - begun

    def _guard_against_failure(self) -> None:
        last = self._ledger.trials[-FAILURES_IN_A_ROW:]
        if len(last) == FAILURES_IN_A_ROW and all(trial.state == "failed" for trial in last):
            raise KvtuneError(
                f"trials {last[0].number} to {last[-1].number} failed one after the other, the last with "
                f"{last[-1].reason}; the same command tries other settings"
            )
