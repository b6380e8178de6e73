"""A made-up recorded grid, on disk and as a world."""

import pytest
from quick_searches import no_waiting_for_the_disk
from recorded_worlds import made_up_table

from kvtune.bench.search.table import load_table
from kvtune.bench.search.world import World


@pytest.fixture(scope="session")
def table_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("recorded") / "grid.npz"
    made_up_table(120).save(path)
    return path


@pytest.fixture(scope="session")
def world(table_file):
    return World(load_table(table_file))


__all__ = ["no_waiting_for_the_disk"]
