"""Captions here are written by a stand-in, so that no test waits for an engine or a disk."""

from quick_searches import no_waiting_for_the_disk, quick_requests

__all__ = ["no_waiting_for_the_disk", "quick_requests"]
