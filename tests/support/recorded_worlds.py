"""Recorded tables made up for tests: captions whose faults follow from the setting, the image and chance."""

import numpy as np

from kvtune.bench.search.settings import Setting, grid_settings, methods_of
from kvtune.bench.search.table import Recorded, Table
from kvtune.chair import SCORER

SMALL_AXES = {
    "lambda_ref": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
    "queue_length": (4, 15),
    "clip_width": (0.0, 0.2),
    "start_layer": (1, 3),
    "end_layer": (8, 15),
}
"""A grid of KVSmooth's parameters, the published-style preset of the demo among them."""


def made_up_table(images: int, axes=SMALL_AXES, seed: int = 0, settings: list[Setting] | None = None) -> Table:
    """Smoothing of about 0.5 in all layers hallucinates least, and the more of it, the less is named at all."""
    settings = grid_settings(axes) if settings is None else settings
    methods, _ = methods_of(settings)
    draw = np.random.default_rng(seed)
    names = ["person", "dog", "cat", "car", "boat", "kite", "bench", "cup"]
    truth = {
        image: sorted(draw.choice(names, draw.integers(1, 8), replace=False).tolist()) for image in range(1, images + 1)
    }
    present = np.array([len(objects) for objects in truth.values()])
    hard = draw.normal(size=images)
    outcomes = np.zeros((images, len(methods), 6), dtype=np.uint8)
    for place, setting in enumerate(methods):
        strength = depth = 0.0
        if setting is not None:
            strength = setting["lambda_ref"] + 0.1 * setting["clip_width"]
            depth = (setting["end_layer"] - setting["start_layer"]) / 16
        ease = depth * (1 - 4 * (strength - 0.5) ** 2)
        wrong = draw.random(images) < 1 / (1 + np.exp(-(0.6 - 1.6 * ease + 1.2 * hard)))
        correct = draw.binomial(present, 0.92 - 0.4 * strength * depth)
        false = wrong * (1 + draw.binomial(2, 0.3, images))
        outcomes[:, place, 0] = correct + false
        outcomes[:, place, 1] = false
        outcomes[:, place, 2] = correct + np.minimum(false, 1)
        outcomes[:, place, 3] = correct
        outcomes[:, place, 4] = draw.integers(50, 100, images)
    recorded = Recorded(
        kvtune="0", scorer=SCORER, weights="0" * 64, device="cpu", dtype="float32", prompt="",
        max_new_tokens=128, scenes_seed=0, settings=settings, fixed={"target": "kv", "adaptive": True},
    )  # fmt: skip
    return Table(recorded, truth, outcomes)
