"""The Optuna storage brought level with a search from time to time."""

import math
from collections.abc import Callable

from kvtune.errors import KvtuneError
from kvtune.study.optuna_copy import OptunaCopy
from kvtune.study.trials import Ledger

OPTUNA_SECONDS = 5.0
"""Between two times that the storage is brought level with the trials."""


class OptunaFollower:
    """Keeps a storage some seconds behind a ledger; one elsewhere whose server is away is left behind until it is back.

    Parameters
    ----------
    ledger
        The trials, which change.
    clock
        Tells the time in seconds.
    note
        Says something once.

    Attributes
    ----------
    is_behind
        Whether the storage could not be brought level when that was tried last.
    """

    def __init__(
        self, copy: OptunaCopy, ledger: Ledger, clock: Callable[[], float], note: Callable[[str], None]
    ) -> None:
        self.copy, self.is_behind = copy, False
        self._ledger, self._clock, self._note = ledger, clock, note
        self._was_level = math.inf

    def begin(self) -> None:
        """Open the storage and bring it level; before that, :meth:`tell` does nothing unless at once.

        Raises
        ------
        KvtuneError
            As :meth:`kvtune.study.optuna_copy.OptunaCopy.follow`.
        """
        self.copy.follow(self._ledger)
        self._was_level = self._clock()

    def tell(self, at_once: bool = False) -> None:
        """Bring the storage level, unless that was done a moment ago, or it is not open yet.

        Unless at once, a trial a call: all of a round take half a second, in which a GPU would soon have nothing to do.

        Raises
        ------
        KvtuneError
            If ``study.db`` cannot be written.
        """
        if self._clock() - self._was_level < (0 if at_once else OPTUNA_SECONDS):
            return
        was_behind, self.is_behind = self.is_behind, True  # also if Ctrl-C comes amid it
        try:
            if was_behind:
                self.copy.follow(self._ledger)
            elif not self.copy.update(self._ledger, None if at_once else 1):
                self.is_behind = False
                return
            self.is_behind = False
        except KvtuneError as error:
            if self.copy.is_local:
                raise
            if not was_behind:
                self._note(f"{error}; the search goes on without it")
        self._was_level = self._clock()

    def close(self) -> None:
        """Let go of the storage."""
        self.copy.close()
