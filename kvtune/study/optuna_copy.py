"""The study as Optuna's own tools read it.

The ledger is what a search works from; the Optuna storage follows it, some seconds later, so that
``optuna.load_study``, optuna-dashboard and every plot of Optuna's show the study, running trials included. It can be
built again at any time.

Optuna writes a trial that is given whole in half the time that one takes which is told of twice, when it is asked and
when it has ended, because its storages keep each attribute by a query and a transaction of its own.
"""

import contextlib
import os
import sqlite3
import warnings
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from kvtune.errors import KvtuneError, RequestError
from kvtune.study.constraints import Constraints
from kvtune.study.manifest import Manifest
from kvtune.study.optuna_trials import STATES, frozen_trial, user_attributes
from kvtune.study.storage_url import STUDY_ID, open_remote, other_study, reason
from kvtune.study.study_folder import StudyFolder
from kvtune.study.switch import journals
from kvtune.study.trials import Ledger, Trial
from kvtune.text import quoted, sqlite_url

METRIC_NAMES = ["chair_s", "f1"]


class OptunaCopy:
    """A study in an Optuna storage, kept equal to the ledger.

    Parameters
    ----------
    folder, manifest
        The study; its folder's name is the Optuna study's, and the manifest's id tells it from another of the same name
        in a shared storage.
    url
        The storage; None for ``study.db`` in the study's folder.
    """

    def __init__(self, folder: StudyFolder, manifest: Manifest, url: str | None) -> None:
        self._folder, self._manifest, self._url = folder, manifest, url
        self._constraints = Constraints()
        self._storage: RDBStorage | None = None
        self._study: optuna.Study | None = None
        self._states: list[TrialState] = []
        """Of the trials in the storage, by number."""

    def follow(self, ledger: Ledger) -> None:
        """Open the storage and bring it level with the ledger; where it says something else, build it again.

        Raises
        ------
        RequestError
            If the storage holds trials that kvtune did not ask, or another study of this name.
        KvtuneError
            If it cannot be read or written.
        """
        self._constraints = self._manifest.constraints(ledger.baseline)
        self.close()
        with self._failing():
            _remove_database(self._new)  # half of one, that a killed process left
            if self._url is None and not self._folder.database.exists():
                self.rebuild(ledger)
                return
            try:
                self._open(self._url or sqlite_url(self._folder.database))
            except SQLAlchemyError:
                self.rebuild(ledger)  # a file that is no database any more
                return
            stored = self._trials()
            if len(stored) > len(ledger.trials):
                raise RequestError(
                    f"study {self._folder.name}: the Optuna storage has {len(stored)} trials, but kvtune asked "
                    f"{len(ledger.trials)}; kvtune rescore {self._folder.argument} builds it again without the others"
                )
            if not all(map(self._agree, ledger.trials, stored)):
                self.rebuild(ledger)
                return
            self._states = [found.state for found in stored]
            self._level(ledger)

    def update(self, ledger: Ledger, most: int | None = None) -> bool:
        """Write what is new since the storage was level with the ledger, which only grew; ``most`` trials of it.

        Returns
        -------
        bool
            Whether the storage is level.

        Raises
        ------
        KvtuneError
            If it cannot be written; then :meth:`follow` brings it level.
        """
        with self._failing():
            return self._level(ledger, most)

    def rebuild(self, ledger: Ledger) -> None:
        """Build the storage anew from the ledger; ``study.db`` beside the old file, which it then replaces.

        Raises
        ------
        KvtuneError
            If it cannot be written.
        """
        with self._failing():
            self.close()
            if self._url is not None:
                self._delete_remote()
                self._open(self._url)
                self._fill(ledger)
                return
            final = self._folder.database
            self.write(self._new, ledger)
            _settle(final)
            os.replace(self._new, final)
            self._open(sqlite_url(final), has_tables=True)

    def write(self, path: Path, ledger: Ledger) -> None:
        """Write the study as a SQLite file of its own, which then is closed.

        Raises
        ------
        KvtuneError
            If it cannot be written.
        """
        with self._failing():
            _remove_database(path)
            self._open(sqlite_url(path))
            self._fill(ledger)
            self.close()

    @property
    def is_local(self) -> bool:
        """Whether the storage is the ``study.db`` of the study's folder."""
        return self._url is None

    def close(self) -> None:
        """Let go of the storage."""
        if self._storage is not None:
            self._storage.remove_session()
            self._storage.engine.dispose()
        self._storage = self._study = None

    @property
    def _new(self) -> Path:
        """Where ``study.db`` is built anew."""
        return self._folder.database.with_name("study.db.new")

    @property
    def _opened(self) -> optuna.Study:
        assert self._study is not None
        return self._study

    def _open(self, url: str, has_tables: bool = False) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        if self._url is None:
            self._storage = _local(url, has_tables)
        else:
            self._storage = open_remote(url)
        # No sampler of this study is ever used: settings come from kvtune.search.rounds.
        study = self._study = optuna.create_study(
            study_name=self._folder.name,
            storage=self._storage,
            directions=["minimize", "maximize"],
            sampler=optuna.samplers.RandomSampler(),
            load_if_exists=True,
        )
        attributes, manifest = study.user_attrs, self._manifest
        is_ours = attributes.get(STUDY_ID) == manifest.id
        if not is_ours and (attributes or self._trials()):
            raise other_study(self._folder.name)
        if not is_ours or study.metric_names != METRIC_NAMES:
            study.set_user_attr(STUDY_ID, manifest.id)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
                study.set_metric_names(METRIC_NAMES)
        for key in ("model", "method", "sampler"):
            value = getattr(manifest.fingerprint, key)
            if attributes.get(key) != value:
                study.set_user_attr(key, value)

    def _fill(self, ledger: Ledger) -> None:
        self._states = []
        self._level(ledger)

    def _level(self, ledger: Ledger, most: int | None = None) -> bool:
        self._constraints = self._manifest.constraints(ledger.baseline)
        scores = ledger.baseline.metrics
        if scores is not None and self._opened.user_attrs.get("baseline") != scores:
            self._opened.set_user_attr("baseline", scores)
        behind = [
            trial
            for trial, state in zip_longest(ledger.trials, self._states)
            if state is None or (state == TrialState.RUNNING and trial.state != "running")
        ]
        for trial in behind[:most]:
            if trial.number == len(self._states):
                self._opened.add_trial(frozen_trial(trial, self._manifest.fingerprint.space, self._constraints))
                self._states.append(STATES[trial.state])
            else:
                self._finish(trial)
        return len(behind[:most]) == len(behind)

    def _finish(self, trial: Trial) -> None:
        assert self._storage is not None and trial.number is not None
        study_id = self._storage.get_study_id_from_name(self._folder.name)
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(study_id, trial.number)
        for key, value in user_attributes(trial).items():
            self._storage.set_trial_user_attr(trial_id, key, value)
        for key, value in frozen_trial(trial, self._manifest.fingerprint.space, self._constraints).system_attrs.items():
            self._storage.set_trial_system_attr(trial_id, key, value)  # constraints, and what was there already
        values = None if trial.point is None else list(trial.point)
        self._opened.tell(trial.number, values, state=STATES[trial.state])
        self._states[trial.number] = STATES[trial.state]

    def _agree(self, trial: Trial, found: FrozenTrial) -> bool:
        """Whether Optuna's trial is the ledger's, or what the ledger's was before it ended."""
        if any(trial.params[name] != value for name, value in found.params.items()) or not found.params:
            return False
        if found.state == TrialState.RUNNING:
            return True
        values = None if trial.point is None else list(trial.point)
        told = (found.state, found.values, found.constraints)
        return told == (STATES[trial.state], values, self._constraints.of(trial))

    def _trials(self) -> list[FrozenTrial]:
        return self._opened.get_trials(deepcopy=False)

    def _delete_remote(self) -> None:
        """Delete this study, and no other of its name, from a shared storage."""
        self._open(str(self._url))
        assert self._storage is not None
        self._storage.delete_study(self._storage.get_study_id_from_name(self._folder.name))
        self.close()

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except (StorageInternalError, SQLAlchemyError, sqlite3.Error, OSError) as error:
            where = self._folder.database if self._url is None else quoted(self._url)
            raise KvtuneError(
                f"the Optuna storage {where} failed: {reason(error, self._url or '')}; no caption is lost: once "
                f"that is mended, the same command goes on, and kvtune rescore {self._folder.argument} builds it again"
            ) from error


def _local(url: str, has_tables: bool) -> RDBStorage:
    """Open a SQLite storage without waiting for the disk at every commit: the ledger is what must not be lost."""
    storage = RDBStorage(
        url,
        engine_kwargs={"connect_args": {"timeout": 60}},
        skip_compatibility_check=has_tables,
        skip_table_creation=has_tables,
    )
    event.listen(storage.engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))
    storage.engine.dispose()
    return storage


def _settle(path: Path) -> None:
    """Let SQLite finish or undo what a killed process had begun in ``path``.

    Otherwise a journal that was left behind would be applied to the file that takes the place of this one.
    """
    if path.exists():
        try:
            with contextlib.closing(sqlite3.connect(path, timeout=60)) as database:
                database.execute("SELECT count(*) FROM sqlite_master").fetchone()
        except sqlite3.DatabaseError:
            _remove_database(path)  # not a database any more
    for journal in journals(path):
        journal.unlink(missing_ok=True)


def _remove_database(path: Path) -> None:
    path.unlink(missing_ok=True)
    for journal in journals(path):
        journal.unlink(missing_ok=True)
