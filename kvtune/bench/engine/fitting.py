"""What happens to a measurement that the device has no room for, or that fails: it is made smaller, or left out."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from kvtune.captioning.memory import free_cached_memory
from kvtune.device_errors import device_failures_told, is_out_of_memory
from kvtune.errors import LostDeviceError, RequestError

T = TypeVar("T")

log = logging.getLogger(__name__)

_LONGEST = 300
"""Characters of an error that are kept; some of PyTorch's run to pages."""


def fitting(run: Callable[[int], T], size: int) -> tuple[int, T]:
    """The first of ``size``, its half, its quarter, ... for which the device has memory, and what ``run`` of it gives.

    Raises
    ------
    RuntimeError
        What ``run(1)`` raised, if not even that fits; any error that is not about memory.
    """
    while True:
        try:
            return size, run(size)
        except RuntimeError as error:
            if size == 1 or not is_out_of_memory(error):
                raise
        # Only here is what the error held of the attempt gone.
        log.warning("%d at once do not fit into the device's memory: trying %d", size, size // 2)
        size //= 2
        free_cached_memory()


@contextmanager
def noted(failed: dict[str, str], what: str) -> Iterator[None]:
    """Write into ``failed`` why the block could not measure ``what``, and go on after it.

    A wrong request is wrong for everything that is measured, and goes through; so does the loss of the GPU.
    """
    try:
        with device_failures_told():
            yield
        return
    except (RequestError, LostDeviceError):
        raise
    except Exception as error:
        failed[what] = " ".join((str(error) or type(error).__name__).split())[:_LONGEST]
        log.warning("%s cannot be measured: %s", what, failed[what])
        log.debug("where %s failed", what, exc_info=True)
    free_cached_memory()
