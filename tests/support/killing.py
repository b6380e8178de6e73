"""Processes that are killed (SIGKILL) at a chosen change of a file or a database."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from typing import Any

from optuna.storages import RDBStorage


def die_at(step: int) -> None:
    """Kill this process at its ``step``-th change of a file or of the Optuna storage: before, after or amid it."""
    left = step
    write = os.write

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            nonlocal left
            for moment in ("before", "after"):
                left -= 1
                if left == 0:
                    if function is write and moment == "before":
                        write(arguments[0], arguments[1][: len(arguments[1]) // 2])
                    os.kill(os.getpid(), signal.SIGKILL)
                if moment == "before":
                    result = function(*arguments, **keywords)
            return result

        return call

    for name in ("write", "ftruncate", "replace", "rename"):
        setattr(os, name, counted(getattr(os, name)))
    for name in (
        "create_new_study",
        "create_new_trial",
        "set_study_user_attr",
        "set_study_system_attr",
        "set_trial_user_attr",
        "set_trial_system_attr",
        "set_trial_state_values",
    ):
        setattr(RDBStorage, name, counted(getattr(RDBStorage, name)))


def child(target: Callable[[], None]) -> int:
    """Run ``target`` in a process of its own and return how it ended."""
    process = multiprocessing.get_context("fork").Process(target=target)
    process.start()
    process.join(120)
    assert process.exitcode is not None
    return process.exitcode
