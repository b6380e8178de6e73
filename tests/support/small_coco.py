"""Small COCO folders in both namings and every layout."""

import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

CATEGORIES = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}, {"id": 62, "name": "chair"}]


def file_name(source: str, image_id: int) -> str:
    return f"COCO_{source}_{image_id:012d}.jpg" if "2014" in source else f"{image_id:012d}.jpg"


def write_coco(root: Path, source: str, image_ids: Sequence[int], layout: str = "nested") -> Path:
    """Write one split: image i has a person, a second person and, where i is even, a dog; ids divisible by 5 nothing.

    ``layout`` is ``nested`` (annotations/, val2014/), ``images`` (images/val2014/) or ``flat`` (one folder).
    """
    annotations = root if layout == "flat" else root / "annotations"
    images = {"nested": root / source, "flat": root, "images": root / "images" / source}[layout]
    annotations.mkdir(parents=True, exist_ok=True)
    images.mkdir(parents=True, exist_ok=True)
    listed = [{"id": i, "file_name": file_name(source, i), "width": 8, "height": 6} for i in image_ids]
    instances, captions = [], []
    for i in image_ids:
        here = [] if i % 5 == 0 else [1, 1, 18] if i % 2 == 0 else [1, 1]
        instances += [{"id": len(instances) + k, "image_id": i, "category_id": c} for k, c in enumerate(here)]
        captions += [{"id": 10 * i + k, "image_id": i, "caption": f"Caption {k} of {i}."} for k in range(5)]
        Image.new("RGB", (8, 6), (i % 256, 40, 90)).save(images / file_name(source, i))
    (annotations / f"instances_{source}.json").write_text(
        json.dumps({"images": listed, "annotations": instances, "categories": CATEGORIES})
    )
    (annotations / f"captions_{source}.json").write_text(json.dumps({"images": listed, "annotations": captions}))
    return root
