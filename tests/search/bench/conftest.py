"""A made-up recorded grid, on disk and as a world."""

import pytest
from recorded_worlds import made_up_table

from kvtune.search.bench.table import load_table
from kvtune.search.bench.world import World


@pytest.fixture(scope="session")
def table_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("recorded") / "grid.npz"
    made_up_table(120).save(path)
    return path


@pytest.fixture(scope="session")
def world(table_file):
    return World(load_table(table_file))


@pytest.fixture(autouse=True)
def _quick_requests() -> None:
    """The recorder's tests run the engine itself, not the stand-in that other tests of searches take."""
