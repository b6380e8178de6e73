"""Fixtures for tests that search with a fake captioner: a conftest imports them."""

import os
import sys
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from fake_search import FakeRequest


@pytest.fixture(autouse=True, scope="module")
def no_waiting_for_the_disk() -> Iterator[None]:
    """Killed processes lose nothing that was written, synced or not; only a power cut would."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(autouse=True, scope="module")
def quick_requests() -> Iterator[None]:
    """Searches with a fake captioner need no engine, whose import takes seconds."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "kvtune.captioning", SimpleNamespace(CaptionRequest=FakeRequest))
        yield
