"""Saved checkpoints, made once a session, and the models loaded from them."""

import pytest
from checkpoints import SAVERS
from newer_checkpoints import NEWER, packages_for_videos_stood_in_for

from kvtune.models import load_model


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """``checkpoint(family, **options)``: the folder of a small random checkpoint."""
    made = {}

    def make(family, **options):
        key = (family, *sorted(options.items()))
        if key not in made:
            made[key] = SAVERS[family](tmp_path_factory.mktemp(family), **options)
        return made[key]

    return make


@pytest.fixture(scope="session")
def loaded(checkpoint):
    """``loaded(family, dtype="float64", **options)``: such a checkpoint, loaded by path."""
    made = {}

    def load(family, dtype="float64", **options):
        key = (family, dtype, *sorted(options.items()))
        if key not in made:
            made[key] = load_model(checkpoint(family, **options), device="cpu", dtype=dtype)
        return made[key]

    return load


@pytest.fixture(scope="session")
def newer(tmp_path_factory):
    """``newer(name, dtype="float64", **options)``: a small random checkpoint of this year's, loaded by path."""
    made = {}

    def load(name, dtype="float64", **options):
        key = (name, dtype, *sorted(options.items()))
        if key not in made:
            folder = NEWER[name](tmp_path_factory.mktemp(name), **options)
            with packages_for_videos_stood_in_for():
                made[key] = load_model(folder, device="cpu", dtype=dtype)
        return made[key]

    return load
