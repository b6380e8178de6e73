"""The demo's data set: rendered scenes laid out as COCO val2014 lays out its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from kvtune.demo.canvas import SIZE
from kvtune.demo.descriptions import reference_captions
from kvtune.demo.scenes import CATEGORIES, render
from kvtune.demo.shapes import SHAPES
from kvtune.errors import KvtuneError
from kvtune.files import cache_folder, new_folder

#: Image ids of the demo start here; training scenes count from 1 and COCO's own ids end below 600,000.
FIRST_ID = 900_001
SCENES = 1_200
#: Changes whenever the same seed would give other scenes or captions, so that a cached set is not mistaken for it.
VERSION = 3

_SPLIT = "val2014"
_LICENSE = {"id": 1, "name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"}


def demo_coco(
    scenes: int = SCENES, seed: int = 0, on_scene: Callable[[int, int], None] = lambda done, total: None
) -> Path:
    """The folder of the demo's scenes, rendered on the first call and kept in the cache.

    Parameters
    ----------
    scenes : int
        How many, at least 1. Their image ids are 900001, 900002, ...; a larger set begins with the smaller one.
    seed : int
        Seed of the scenes, at least 0.
    on_scene
        Called with (scenes rendered, all scenes) as they are.

    Returns
    -------
    Path
        A COCO root: ``val2014/COCO_val2014_000000900001.jpg``, ..., ``annotations/instances_val2014.json`` and
        ``annotations/captions_val2014.json`` with five reference captions for each image.

    Raises
    ------
    KvtuneError
        If the cache cannot be written. Nothing half-written stays behind.
    """
    root = cache_folder() / "demo" / f"coco-v{VERSION}-seed{seed}-{scenes}"
    if root.is_dir():
        return root
    try:
        with new_folder(root) as temporary:
            if not root.is_dir():  # another process was quicker
                write_coco(temporary, range(FIRST_ID, FIRST_ID + scenes), seed, on_scene)
    except OSError as error:
        raise KvtuneError(
            f"cannot write the demo's scenes to {root}: {error.strerror or error}; free some space or set KVTUNE_CACHE"
        ) from error
    return root


def write_coco(
    root: Path,
    image_ids: Sequence[int],
    seed: int,
    on_scene: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Render the scenes of ``image_ids`` into ``root`` with their annotations."""
    pictures = root / _SPLIT
    pictures.mkdir(parents=True)
    images: list[dict[str, Any]] = []
    instances: list[dict[str, Any]] = []
    captions: list[dict[str, Any]] = []
    for done, image_id in enumerate(image_ids, 1):
        image, boxes, texts = _write_scene(image_id, pictures, seed)
        images.append(image)
        instances += boxes
        captions += texts
        on_scene(done, len(image_ids))
    for records in (instances, captions):
        for number, record in enumerate(records, start=1):
            record["id"] = number
    info = {"description": f"kvtune demo scenes, seed {seed}", "version": str(VERSION), "year": 2014}
    common = {"info": info, "licenses": [_LICENSE], "images": images}
    categories = [
        {"id": SHAPES[name].coco_id, "name": name, "supercategory": SHAPES[name].supercategory} for name in CATEGORIES
    ]
    annotations = root / "annotations"
    annotations.mkdir()
    (annotations / f"instances_{_SPLIT}.json").write_text(
        json.dumps(common | {"annotations": instances, "categories": categories}), encoding="utf-8"
    )
    (annotations / f"captions_{_SPLIT}.json").write_text(
        json.dumps(common | {"annotations": captions}), encoding="utf-8"
    )


def _write_scene(
    image_id: int, folder: Path, seed: int
) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """Render one scene to its file; its records for images, instances and captions (ids are given later)."""
    scene = render(seed, image_id)
    name = f"COCO_{_SPLIT}_{image_id:012d}.jpg"
    Image.fromarray(scene.pixels).save(folder / name, quality=95, subsampling=0)
    image = {"id": image_id, "file_name": name, "width": SIZE, "height": SIZE, "license": 1}
    boxes = []
    for index, one in enumerate(scene.objects, start=1):
        left, top, right, bottom = one.box
        encoded = coco_mask.encode(np.asfortranarray(scene.instances == index, dtype=np.uint8))
        boxes.append(
            {
                "image_id": image_id,
                "category_id": SHAPES[one.category].coco_id,
                "bbox": [left, top, right - left, bottom - top],
                "area": one.area,
                "segmentation": {"size": encoded["size"], "counts": encoded["counts"].decode("ascii")},
                "iscrowd": 0,
            }
        )
    rng = np.random.default_rng([seed, image_id, 2])
    texts = [{"image_id": image_id, "caption": text} for text in reference_captions(rng, scene)]
    return image, boxes, texts
