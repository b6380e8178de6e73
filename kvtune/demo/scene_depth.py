"""How far away what the demo's scenes show is."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from kvtune.demo.canvas import SIZE
from kvtune.demo.scenes import render
from kvtune.errors import RequestError

_FILE = re.compile(r"COCO_val2014_(\d{12})")
_FOLDER = re.compile(r"coco-v\d+-seed(\d+)-\d+")


def scene_depth(path: Path | None) -> np.ndarray:
    """Depth of a scene that :func:`kvtune.demo.coco.demo_coco` rendered, [SIZE, SIZE] float32, 1 near and 0 far.

    An object is as near as its foot is low in the picture; so is the ground behind it.

    Raises
    ------
    RequestError
        If the image is none of the demo's.
    """
    file = _FILE.fullmatch(path.stem) if path else None
    folder = _FOLDER.fullmatch(path.parent.parent.name) if path else None
    if file is None or folder is None:
        raise RequestError("depth scenes is for the demo's scenes; take a depth estimator, a folder of maps, or none")
    scene = render(int(folder[1]), int(file[1]))
    depth = np.repeat(np.linspace(0, 1, SIZE, dtype=np.float32)[:, None], SIZE, axis=1)
    for index, one in enumerate(scene.objects, start=1):
        depth[scene.instances == index] = one.box[3] / SIZE
    return depth
