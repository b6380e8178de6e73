"""Small COCO folders."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from small_coco import write_coco


@pytest.fixture
def make_coco(tmp_path: Path) -> Callable[..., Path]:
    """Write splits into one folder: ``make_coco("val2014", [1, 2])``; see :func:`write_coco`."""

    def make(source: str, image_ids: Sequence[int], layout: str = "nested", root: Path | None = None) -> Path:
        return write_coco(root or tmp_path / "coco", source, image_ids, layout)

    return make
