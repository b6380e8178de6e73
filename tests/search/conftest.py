"""What tests of searches share."""

import os

import pytest


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed processes lose nothing that was written, synced or not; only a power cut would."""
    monkeypatch.setattr(os, "fsync", lambda file: None)
