"""The search itself: the baseline, then rounds of trials until enough are finished."""

from collections.abc import Callable, Collection, Mapping, Sequence, Set
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kvtune.chair import save_ground_truth
from kvtune.errors import KvtuneError
from kvtune.search.budget import Budget
from kvtune.search.optuna_follower import OptunaFollower
from kvtune.search.race import FirstImages, Heat
from kvtune.search.rounds import Plan
from kvtune.search.view import View
from kvtune.statistics.racing import race_counts
from kvtune.study.caption_log import CaptionLog, captions_of, captions_sha256, read_captions, salvage
from kvtune.study.captioning import caption_images
from kvtune.study.deadline import Deadline, Waves
from kvtune.study.judged import lost_captions
from kvtune.study.manifest import Manifest, check_trials
from kvtune.study.optuna_copy import OptunaCopy
from kvtune.study.pace import Pace
from kvtune.study.rescore import scored_again, switch_scores, with_reference_point
from kvtune.study.scoring import Scoring
from kvtune.study.streams import Captioning, CaptionWriter, Stream
from kvtune.study.study_folder import StudyFolder
from kvtune.study.subsets import Image
from kvtune.study.together import alone
from kvtune.study.trials import LedgerWriter, Trial
from kvtune.study.workers import WorkersFile

FAILURES_IN_A_ROW = 3
"""So many failed trials, one after the other, end a search: something is wrong with more than the settings."""


class Search:
    """A study being searched. The caller holds the study's lock.

    Parameters
    ----------
    folder, manifest
        The study; its manifest is on disk already.
    images
        The tune images in the order of the subset.
    storage
        URL of an Optuna storage instead of ``study.db``.
    deadline
        When to end, however many trials are finished.
    ground_truth
        What ``scoring`` goes by, to be kept with the study.
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
        deadline: Deadline | None = None,
        ground_truth: Mapping[int, Collection[str]] | None = None,
    ) -> None:
        self._folder = folder
        self._manifest = manifest
        self._captioner = captioner
        self._order = manifest.image_order
        files = dict(images)
        self._images = [(image_id, files[image_id]) for image_id in self._order]
        self._race = manifest.race
        self._waves = Waves(deadline)
        clock = self._waves.deadline.clock
        self._pace = Pace(clock=clock)
        self._counted: dict[int, NDArray[np.int64]] = {}
        self._ids = [image_id for image_id, _ in images]
        self._scoring = scoring
        self._ground_truth = ground_truth
        self._view = view
        self._ledger = LedgerWriter(folder.ledger)
        self._optuna = OptunaFollower(OptunaCopy(folder, manifest, storage), self._ledger, clock, view.note)
        self._workers = WorkersFile(folder.workers, captioner)

    def run(self, trials: int) -> None:
        """Search until the study holds ``trials`` finished trials, the grid has no more points or the time is up.

        Raises
        ------
        KvtuneError
            If captioning or a file fails; the same call goes on where this one stopped.
        """
        alone(self.steps(trials))

    def steps(self, trials: int) -> Captioning[None]:
        """The same as a work of :mod:`kvtune.study.streams`."""
        with closing(self._ledger), closing(self._optuna):
            check_trials(self._ledger, self._manifest)
            lost = self._find_lost()
            self._budget = Budget(self._folder, self._manifest, self._ledger, self._pace, trials, sum(lost.values()))
            try:
                with self._view.showing(self._manifest, self._ledger, self._budget.to_come, self._pace):
                    ended = (yield from self._restore(lost)) and (yield from self._search(trials))
            except BaseException:
                with suppress(KvtuneError):
                    self._optuna.tell(at_once=True)
                raise
            self._workers.keep(at_once=True)
            self._optuna.tell(at_once=True)
            if self._optuna.is_behind:
                self._view.note("the Optuna storage is behind; the same command brings it up to date")
            if ended:
                return
            self._view.note(
                f"time is up after {self._ledger.finished} of {trials} finished trials; no caption is lost, and the "
                "same command goes on from here"
            )

    def _search(self, trials: int) -> Captioning[bool]:
        """Search; False if the time was up before the end."""
        if self._ledger.baseline.state == "running" and not (yield from self._judge([self._ledger.baseline])):
            return False
        self._set_reference_point()
        while self._ledger.finished < trials:
            if self._waves.size() == 0:
                return False
            running = self._ledger.running or self._ask(trials)
            if not running:
                self._view.note(f"the grid has no more points after {self._ledger.finished} trials")
                break
            if not (yield from self._judge(running)):
                return False
            self._optuna.tell()
            self._guard_against_failure()
        return True

    def _find_lost(self) -> dict[int | None, int]:
        """Judged trials whose captions are not those that were scored, and how many captions each lacks.

        What cannot be completed is put aside first. Then the digest of the captions is forgotten, so that whatever the
        new ones are, a search that is stopped before they are scored goes on with them.
        """
        lost = lost_captions(self._folder, self._manifest, self._ledger)
        lacking = {}
        for number, error in lost.items():
            path = self._folder.trial_captions(number)
            if error.kind != "missing":
                salvage(path, keep=error.kind == "unreadable")
            held = read_captions(path)
            judged = self._manifest.judged_images(self._ledger[number])
            lacking[number] = sum(image_id not in held for image_id in judged)
            self._view.note(f"{error.what}; {lacking[number]} captions are written again")
        if lost:
            self._ledger.rewrite(lambda trial: replace(trial, captions=None) if trial.number in lost else trial)
        return lacking

    def _restore(self, lost: Collection[int | None]) -> Captioning[bool]:
        """Caption again what is lost, and score again what is not scored as it is now; False if the time was up."""
        of_images: dict[int, list[int | None]] = {}
        for number in lost:
            of_images.setdefault(len(self._manifest.judged_images(self._ledger[number])), []).append(number)
        for count, numbers in of_images.items():
            with ExitStack() as stack:
                logs = {number: stack.enter_context(closing(self._open_log(number))) for number in numbers}
                for number in numbers:
                    self._view.started(number, len(logs[number]))
                methods = {number: self._method(number) for number in numbers}
                images, written = self._images[:count], self._view.caption
                self._budget.look_ahead([])
                failures = yield from self._caption(images, methods, logs, written)
                if failures:
                    number, reason = next(iter(failures.items()))
                    raise KvtuneError(f"captioning trial {number} again failed: {reason}; its scores stay as they are")
                if not all(log.has_all(self._order[:count]) for log in logs.values()):
                    return False
        self._same_scores_throughout()
        self._optuna.begin()
        for number in lost:
            self._view.ended(self._ledger[number])
        return True

    def _plan(self) -> Plan:
        fingerprint, published, start = self._manifest.fingerprint, self._manifest.published, self._manifest.start
        return Plan(
            fingerprint.space,
            fingerprint.sampler,
            fingerprint.seed,
            fingerprint.parallel_trials,
            [each.parameters for each in published if each.enqueued],
            [] if start is None else [each.point for each in start.points],
            {each.trial: each.point for each in self._manifest.enqueued},
            self._manifest.constraints(self._ledger.baseline),
        )

    def _ask(self, trials: int) -> list[Trial]:
        """Ask the next trials, at most to the end of their round."""
        plan, start = self._plan(), len(self._ledger.trials)
        stop = min((start // plan.size + 1) * plan.size, start + trials - self._ledger.finished)
        asked = plan.trials(self._ledger.trials, start, stop)
        self._ledger.ask(asked)
        return asked

    def _judge(self, trials: Sequence[Trial]) -> Captioning[bool]:
        """Caption the images with trials of one round together, then score them and tell what came of them, by number.

        False if the time was up first; they are then still running.
        """
        numbers = [trial.number for trial in trials]
        failures: dict[int | None, str] = {}
        with ExitStack() as stack:
            logs = {number: stack.enter_context(closing(self._open_log(number))) for number in numbers}
            heat = self._heat({number: log for number, log in logs.items() if number is not None})
            stopped: set[int | None] = set(heat.out)
            unfinished = {
                number: self._method(number)
                for number in numbers
                if number not in stopped and not logs[number].has_all(self._order)
            }

            def written(number: int | None) -> None:
                self._view.caption(number)
                estimate = self._budget.caption(FirstImages(self._order, logs[number]))
                if estimate:
                    self._view.note(estimate)
                if number is not None and number not in stopped and heat.look(number):
                    stopped.add(number)
                    spared = len(self._order) - len(logs[number])
                    self._budget.spare(spared)
                    self._view.stopped(number, spared)

            if unfinished and self._waves.size() != 0:
                for number in unfinished:
                    self._view.started(number, len(logs[number]))
                self._budget.look_ahead(numbers)
                failures = yield from self._caption(self._images, unfinished, logs, written, stopped)
            if not all(log.has_all(self._order) for n, log in logs.items() if n not in stopped and n not in failures):
                return False
        for number in numbers:
            self._view.ended(self._settle(number, heat, failures))
        return True

    def _caption(
        self,
        images: Sequence[Image],
        methods: Mapping[int | None, Any],
        logs: Mapping[int | None, CaptionLog],
        written: Callable[[int | None], None],
        stopped: Set[int | None] = frozenset(),
    ) -> Captioning[dict[int | None, str]]:
        stream = Stream(self._captioner, images, methods, logs, written, stopped, self._waves, self._pace, self._worked)
        return caption_images(stream)

    def _worked(self) -> None:
        self._view.worked()
        self._workers.keep()
        if not self._optuna.is_behind:
            self._optuna.tell()

    def _settle(self, number: int | None, heat: Heat, failures: Mapping[int | None, str]) -> Trial:
        """Score a trial and write down what came of it."""
        if number is None:
            return self._ledger.complete(None, *self._scores(None, self._ids))
        if number in heat.out:
            out = heat.out[number]
            return self._ledger.race_out(number, *self._scores(number, self._order[: out.images]), by=out.by)
        if number in failures:
            return self._ledger.fail(number, failures[number])
        return self._ledger.complete(number, *self._scores(number, self._ids))

    def _scores(self, number: int | None, image_ids: Sequence[int]) -> tuple[dict[str, Any], str, str]:
        """Scores, what scored them, and the digest of the captions."""
        captions = captions_of(self._folder.trial_captions(number), image_ids)
        return self._scoring.score(captions), self._scoring.identity, captions_sha256(captions)

    def _heat(self, logs: Mapping[int, CaptionLog]) -> Heat:
        """The race of these trials against the front of all earlier rounds."""
        constraints = self._manifest.constraints(self._ledger.baseline)
        size = self._manifest.fingerprint.parallel_trials
        first = min(logs, default=0) // size * size
        members = constraints.front(self._ledger.trials[:first]) if self._race is not None and logs else []
        counts = {number: self._counts(number) for number in members}
        return Heat(self._race, self._order, counts, logs, lambda lines: race_counts(self._scoring.counts(lines).table))

    def _counts(self, number: int) -> NDArray[np.int64]:
        """Counts of a complete trial's captions in the order of the race."""
        if number not in self._counted:
            lines = captions_of(self._folder.trial_captions(number), self._order)
            self._counted[number] = race_counts(self._scoring.counts(lines).table)
        return self._counted[number]

    def _open_log(self, number: int | None) -> CaptionLog:
        path = self._folder.trial_captions(number)
        opened = CaptionLog(path)
        strange = set(opened.image_ids) - set(self._ids)
        if strange:
            opened.close()
            raise KvtuneError(f"{path} has a caption of image {min(strange)}, which is no tune image; remove that line")
        return opened

    def _method(self, number: int | None) -> Any:
        return None if number is None else self._manifest.fingerprint.space.method_of(self._ledger[number].params)

    def _same_scores_throughout(self) -> None:
        """Score again what another scorer or another ground truth has scored, and what lacks its captions' digest."""
        judged = self._ledger.judged
        if any(trial.scoring != self._scoring.identity for trial in judged):
            self._view.note(f"scorer or ground truth changed; scoring {len(judged)} stored settings again")
        if any(trial.scoring != self._scoring.identity or trial.captions is None for trial in judged):
            scored = scored_again(self._folder, self._manifest, self._ledger, self._scoring)
            self._manifest = switch_scores(
                self._folder, self._manifest, self._ledger, scored, self._scoring, self._ground_truth, self._optuna.copy
            )
        elif self._ground_truth is not None:
            save_ground_truth(self._ground_truth, self._folder.ground_truth)

    def _set_reference_point(self) -> None:
        manifest = with_reference_point(self._manifest, self._ledger.baseline)
        if manifest != self._manifest:
            self._manifest = manifest
            manifest.save(self._folder.manifest)

    def _guard_against_failure(self) -> None:
        last = self._ledger.trials[-FAILURES_IN_A_ROW:]
        if len(last) == FAILURES_IN_A_ROW and all(trial.state == "failed" for trial in last):
            raise KvtuneError(
                f"trials {last[0].number} to {last[-1].number} failed one after the other, the last with "
                f"{last[-1].reason}; the same command tries other settings"
            )
