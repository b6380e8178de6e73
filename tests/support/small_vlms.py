"""Small random models wrapped as kvtune holds them, with prompts whose length depends on the image."""

import contextlib
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image
from small_models import BOS, IMAGE_TOKEN, PAD, VOCABULARY, small_llava

from kvtune.models.families.llava import Llava
from kvtune.models.family import VisionLanguageModel


class SmallLlava(Llava):
    """A LLaVA without a tokenizer: the text after the image is random, its length the image's first pixel."""

    def prepare(self, vlm, images, prompt):
        rows = []
        for image in images:
            length = 1 + np.asarray(image)[0, 0, 0] % 5
            text = torch.randint(6, VOCABULARY, (int(length),), generator=torch.Generator().manual_seed(int(length)))
            rows.append(torch.cat([torch.tensor([BOS] + [IMAGE_TOKEN] * 16), text]))
        longest = max(map(len, rows))
        ids = torch.stack([torch.nn.functional.pad(row, (longest - len(row), 0), value=PAD) for row in rows])
        pixels = torch.stack([torch.tensor(np.asarray(image)).permute(2, 0, 1) / 64.0 - 2.0 for image in images])
        return {"input_ids": ids, "attention_mask": (ids != PAD).long(), "pixel_values": pixels}


class _Tokenizer:
    def decode(self, token_ids, skip_special_tokens=True):
        return " ".join(map(str, token_ids))

    def convert_ids_to_tokens(self, token_ids):
        return list(map(str, token_ids))


class _Processor:
    tokenizer = _Tokenizer()
    image_processor = SimpleNamespace(do_center_crop=False)


def small_vlm(hf_model=None, family=None, eos=(2, 9, 14, 31, 40)) -> VisionLanguageModel:
    """A vision-language model whose captions end at different lengths, for it has several end-of-text tokens."""
    hf_model = hf_model or small_llava(0, kv_heads=2)
    hf_model.generation_config.eos_token_id = list(eos)
    return VisionLanguageModel(family or SmallLlava(), hf_model, _Processor(), "small", "small", None)


def random_images(count, seed=0):
    generator = np.random.default_rng(seed)
    return [Image.fromarray(generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)) for _ in range(count)]


def reference_tokens(vlm, image, method, max_new_tokens):
    """What ``with method(model): model.generate(...)`` writes, up to the end-of-text token."""
    (found,) = references_together(vlm, [image], method, max_new_tokens)
    return found


def references_together(vlm, images, method, max_new_tokens):
    """The same of several images, as a batch padded on the left."""
    inputs = vlm.prepare(images)
    with method(vlm.hf_model) if method else contextlib.nullcontext(), torch.no_grad():
        output = vlm.hf_model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
    written = output[:, inputs["input_ids"].shape[1] :] if "input_ids" in inputs else output
    return [_to_the_end(tokens, vlm.eos_token_ids) for tokens in written.tolist()]


def _to_the_end(tokens, ends):
    for index, token in enumerate(tokens):
        if token in ends:
            return tuple(tokens[:index]), "eos"
    return tuple(tokens), "length"


class References:
    """Reference tokens of one model's images and methods: what is written up to a limit begins what is to a longer one.

    Parameters
    ----------
    most
        The limit up to which they are written, once for each method and all images.
    """

    def __init__(self, vlm, images, most):
        self._vlm, self._images, self._most = vlm, images, most
        self._known = {}

    def __call__(self, image, method, limit):
        assert limit <= self._most
        if method not in self._known:
            self._known[method] = references_together(self._vlm, self._images, method, self._most)
        tokens, reason = self._known[method][image]
        return (tokens, reason) if len(tokens) < limit else (tokens[:limit], "length")
