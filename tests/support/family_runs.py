"""Pictures, methods and what ``generate()`` writes of them, for the tests of every model family."""

import numpy as np
import torch
from PIL import Image

from kvtune import KVSmooth

SIZES = [(50, 30), (30, 90), (40, 40)]
STEPS = 16
METHODS = [
    KVSmooth(0.9, 5, 0.2, 1, 3),
    KVSmooth(0.5, 3, 0.5, 0, 3),
    KVSmooth(0.6, 4, 0.4, 0, 2, target="k"),
    KVSmooth(0.7, 4, 0.4, 1, 3, target="attention_output"),
    KVSmooth(0.6, 15, 0.2, 0, 3, adaptive=False),
]


def pictures(seed=0):
    random = np.random.default_rng(seed)
    return [Image.fromarray(random.integers(0, 256, (h, w, 3), dtype=np.uint8)) for w, h in SIZES]


def generate(vlm, inputs, **settings):
    settings = {"max_new_tokens": STEPS, "eos_token_id": None, **settings}
    with torch.no_grad():
        output = vlm.hf_model.generate(**inputs, **settings)
    return output[:, inputs["input_ids"].shape[1] :].tolist()
