"""Scenes of the demo for commands; and searches of commands without a copy for Optuna, where a test asks for that."""

from collections.abc import Callable
from pathlib import Path

import pytest
from quick_searches import without_optuna

__all__ = ["without_optuna"]


@pytest.fixture(scope="session")
def demo_scenes(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """``demo_scenes(count)``: a new COCO folder with the demo's first scenes."""

    def write(count: int) -> Path:
        from kvtune.demo.coco import FIRST_ID, write_coco

        root = tmp_path_factory.mktemp("scenes") / "coco"
        root.mkdir()
        write_coco(root, range(FIRST_ID, FIRST_ID + count), 0)
        return root

    return write
