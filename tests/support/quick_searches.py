"""Fixtures for tests that search with a fake captioner: a conftest imports them."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, NoReturn

import pytest
from fake_search import FakeRequest

import kvtune
from kvtune.models.opening import check_options
from kvtune.models.options import ModelOptions


def checked_alone(options: ModelOptions, *_: Any) -> NoReturn:
    """Checks a model's options as the real one does, and opens nothing."""
    check_options(options)
    raise AssertionError(f"{options} would be opened")


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
        captioning: Any = ModuleType("kvtune.captioning")
        captioning.CaptionRequest, captioning.open_captioner = FakeRequest, checked_alone
        captioning.__path__ = [str(Path(kvtune.__file__).parent / "captioning")]  # its modules are found without it
        patch.setitem(sys.modules, "kvtune.captioning", captioning)
        yield


@pytest.fixture
def without_optuna(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep no copy of a study for Optuna, which takes most of the time of a search whose captions are made up."""
    copy = SimpleNamespace(is_local=True, follow=lambda told: None, update=lambda told, most: True, close=lambda: None)
    monkeypatch.setattr("kvtune.search.loop.OptunaCopy", lambda folder, manifest, storage: copy)


@pytest.fixture
def optuna_in_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the copy for Optuna follow at every chance, not every few seconds."""
    monkeypatch.setattr("kvtune.search.optuna_follower.OPTUNA_SECONDS", 0)
