"""What methods are tried on: small random models in float64, each with a batch of two prompts padded on the left."""

import functools
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from checkpoints import save_llava_next, save_qwen
from naive_methods import naive_caption
from PIL import Image
from small_models import llava_inputs, small_llava
from small_vlms import small_vlm

from kvtune.methods import get_method
from kvtune.models import load_model

LAYERS = 5
"""Enough that CLVS may end before the last one, and VAR has several."""
STEPS = 10


@dataclass
class Tried:
    model: Any
    batch: dict[str, torch.Tensor]
    alone: list[dict[str, torch.Tensor]]
    vlm: Any
    """What knows where in the picture visual tokens are, as long as somebody holds it."""


def tried_llava(kv_heads):
    model = small_llava(1, layers=LAYERS, kv_heads=kv_heads)
    batch = llava_inputs(model, [4, 2], seed=7)
    return Tried(model, batch, [row_alone(batch, 0), row_alone(batch, 1)], small_vlm(model, eos=()))


def row_alone(batch, row):
    """One row of a batch without its padding."""
    length = int(batch["attention_mask"][row].sum())
    return {
        name: value[row : row + 1, -length:] if value.ndim == 2 else value[row : row + 1]
        for name, value in batch.items()
    }


def tried_checkpoint(save):
    with TemporaryDirectory() as folder:
        vlm = load_model(save(Path(folder), 3, layers=LAYERS), device="cpu", dtype="float64")
    generator = np.random.default_rng(0)
    pictures = [
        Image.fromarray(generator.integers(0, 256, (*size, 3), dtype=np.uint8)) for size in ((28, 28), (24, 60))
    ]
    return Tried(vlm.hf_model, vlm.prepare(pictures), [vlm.prepare([picture]) for picture in pictures], vlm)


MODELS = {  # LLaVA-NeXT's has as many heads of keys as of queries
    "grouped heads": lambda: tried_llava(2),
    "llava-next": lambda: tried_checkpoint(save_llava_next),
    "qwen2.5-vl": lambda: tried_checkpoint(save_qwen),
}


@functools.cache
def tried(name):
    return MODELS[name]()


METHODS = {
    "pai": {"alpha": 0.5, "start_layer": 1, "end_layer": 5},
    "middle_layers": {"alpha": 0.7, "start_layer": 1, "end_layer": 4},
    "vaf": {"visual_gain": 1.3, "system_gain": 0.0, "start_layer": 1, "end_layer": 4},
    "sparc": {"alpha": 1.4, "beta": 0.5, "tau": 0.1, "layer": 2},
    "ad_hh": {"heads": [[0, 1], [2, 3], [2, 0], [4, 2]], "threshold": 0.2},
    "var": {"tau": 1.8, "rho": 0.7, "p": 0.2, "sink_dims": [3, 17, 20]},
    "var auto": {"tau": 1.5, "rho": 0.9, "p": 0.3, "sink_dims": "auto"},
    "clvs": {"alpha": 0.5, "beta": 0.6, "threshold": 0.5},
    "clvs to the end": {"alpha": 0.3, "beta": 0.7, "threshold": 0.0},
    "dscr": {"sigma_s": 0.2, "beta": 0.8, "start_layer": 1, "end_layer": 5},
    "dscr kv": {"sigma_s": 0.4, "beta": 0.5, "start_layer": 0, "end_layer": 3, "target": "kv"},
    "vaf+clvs": {
        "visual_gain": 1.3, "system_gain": 0.8, "start_layer": 1, "end_layer": 3,
        "alpha": 0.3, "beta": 0.8, "threshold": 0.3,
    },
    "var+sparc": {
        "var.tau": 1.8, "rho": 0.7, "p": 0.2, "sink_dims": [3, 17, 20], "alpha": 1.4, "beta": 0.5, "sparc.tau": 0.1,
        "layer": 2,
    },
    "kvsmooth+pai": {
        "lambda_ref": 0.6, "queue_length": 5, "clip_width": 0.4, "alpha": 0.5,
        "kvsmooth.start_layer": 0, "kvsmooth.end_layer": 4, "pai.start_layer": 1, "pai.end_layer": 5,
    },
    "pai+sparc+kvsmooth": {
        "pai.alpha": 0.5, "pai.start_layer": 0, "pai.end_layer": 3, "sparc.alpha": 1.4, "beta": 0.5, "tau": 0.1,
        "layer": 1, "lambda_ref": 0.9, "kvsmooth.start_layer": 1, "kvsmooth.end_layer": 4, "target": "attention_output",
    },
}  # fmt: skip
"""A case begins with its method's name."""


def method_of(case):
    return get_method(case.split()[0]).from_parameters(METHODS[case])


def naive_stack(method):
    return [(part.name, part.parameters()) for part in method.parts]


@functools.cache
def naive(name, row, case, steps=STEPS):
    """What the naive reference writes of one prompt alone; None is the plain model."""
    of = tried(name)
    return naive_caption(of.model, of.alone[row], naive_stack(method_of(case)) if case else [], steps)


def generate(model, inputs, **settings):
    """Greedy tokens, [rows, steps], and the whole output."""
    wanted = {"max_new_tokens": STEPS, "do_sample": False, "eos_token_id": None, "repetition_penalty": 1.0}
    with torch.no_grad():
        output = model.generate(**inputs, **{**wanted, **settings}, output_logits=True, return_dict_in_generate=True)
    return output.sequences[:, inputs["input_ids"].shape[1] :].tolist(), output
