"""What tests of searches share."""

import os
import sys
from types import SimpleNamespace

import pytest
from fake_search import FakeRequest


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed processes lose nothing that was written, synced or not; only a power cut would."""
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture(autouse=True)
def _quick_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches with a fake captioner need no engine, whose import takes seconds."""
    monkeypatch.setitem(sys.modules, "kvtune.captioning", SimpleNamespace(CaptionRequest=FakeRequest))
