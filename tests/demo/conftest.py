"""A naive reading of the demo's captions, apart from the product's CHAIR, and the demo model loaded once."""

import re
from collections.abc import Callable

import pytest
import torch
from transformers import AutoProcessor, LlavaForConditionalGeneration

from kvtune.demo import demo_model_path
from kvtune.demo.descriptions import NOUNS


@pytest.fixture(scope="session")
def mentioned() -> Callable[[str], list[str]]:
    """Caption -> the categories it names, in order, by the grammar's own nouns, the longest first."""
    category = {
        re.sub("^pairs? of ", "", noun): name for name, pairs in NOUNS.items() for pair in pairs for noun in pair
    } | {"desk": "dining table", "desks": "dining table"}
    longest_first = sorted(category, key=len, reverse=True)
    pattern = re.compile(r"\b(" + "|".join(map(re.escape, longest_first)) + r")\b")
    return lambda text: [category[noun] for noun in pattern.findall(text.lower())]


@pytest.fixture(scope="session")
def demo_model() -> tuple[LlavaForConditionalGeneration, AutoProcessor]:
    folder = demo_model_path()
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    return model, AutoProcessor.from_pretrained(folder)
