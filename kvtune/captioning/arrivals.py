"""Requests of a run as they come: pulled no further than is wanted, and kept until somebody has taken them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice

from kvtune.captioning.request import CaptionRequest


class Arrivals:
    """Requests pulled from ``requests``, in which None says that there are no more for now.

    Attributes
    ----------
    here
        Those that nobody has taken yet.
    are_over
        Whether no more will come.
    """

    def __init__(self, requests: Iterable[CaptionRequest | None]) -> None:
        self._requests = iter(requests)
        self.here: deque[CaptionRequest] = deque()
        self.are_over = False

    def pull(self, most: int) -> None:
        """Have up to so many come."""
        pulled = 0
        for request in islice(self._requests, most):
            if request is None:
                return
            self.here.append(request)
            pulled += 1
        self.are_over = pulled < most
