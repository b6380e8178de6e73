"""The model and the method of those parts of the bench that are modules to run, from their arguments."""

from __future__ import annotations

import argparse
import json
import logging
from typing import Any

import numpy as np
from PIL import Image

from kvtune import KVSmooth
from kvtune.captioning import Captioner
from kvtune.captioning.one_device import open_on_one_device
from kvtune.models import VisionLanguageModel
from kvtune.models.options import EngineOptions, ModelOptions
from kvtune.models.random_weights import ARCHITECTURES


def arguments(description: str | None) -> argparse.ArgumentParser:
    """A parser of what all of them take."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = ", ".join(ARCHITECTURES)
    parser.add_argument("--model", default="llava-1.5", help=f"full-size with random weights ({known}), or demo")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--lanes", type=int, help="captions decoded at once; what fits when left out")
    parser.add_argument("--trials", type=int, default=16, help="captions of each image")
    parser.add_argument("--max-new-tokens", type=int, default=512)
    return parser


def subject(given: argparse.Namespace) -> Captioner:
    """Of a full-size model with random weights, or of one that is there, as the demo is."""
    engine = EngineOptions(given.device, str(given.lanes or "auto"))
    options = ModelOptions(given.model, given.dtype, random_weights=given.model in ARCHITECTURES, engine=engine)
    return open_on_one_device(options, max_new_tokens=given.max_new_tokens)


def bench_method(vlm: VisionLanguageModel) -> KVSmooth:
    """KVSmooth on all but the outermost layers, as published, but mild."""
    return KVSmooth(0.5, start_layer=min(3, vlm.n_layers // 4), end_layer=vlm.n_layers - 1)


def noise_image(number: int) -> Image.Image:
    """An image of random pixels, the same whenever its number comes again."""
    return Image.fromarray(np.random.default_rng(number).integers(0, 256, (64, 64, 3), dtype=np.uint8))


def say_everything() -> None:
    """Let kvtune say on stderr all that it says at any level, tracebacks of failures that it goes on after too."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("kvtune").setLevel(logging.DEBUG)


def print_line(result: dict[str, Any]) -> None:
    """One JSON object, at once."""
    print(json.dumps(result), flush=True)
