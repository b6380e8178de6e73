"""A method that looks at the image from the first generated token on: the same around generate() and in the engine."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from engine_requests import IMAGES, vlm
from graph_like import like_a_gpu
from small_vlms import reference_tokens

from kvtune.captioning import Captioner, CaptionRequest
from kvtune.errors import RequestError
from kvtune.methods import KVSmooth, Method, Stack
from kvtune.methods.parameters import end_layer, number, start_layer
from kvtune.methods.row_state import RowState

BEGUN: list[tuple[int, int, bool]] = []
"""Of every prompt that a method was told of: its tokens, its visual ones, and whether its outputs are known."""


@dataclasses.dataclass(frozen=True)
class Dim(Method):
    """Weights of visual tokens times ``gain``, for generated tokens."""

    gain: float = number(0.5, low=0, search=(0.0, 1.0, 0.1))
    start_layer: int = start_layer(0)
    end_layer: int = end_layer(3)

    @classmethod
    def row_state(cls, n_rows: int, decoder: Any, device: Any) -> DimRows:
        return DimRows(cls, n_rows, decoder, device)


Dim.name = "dim"  # not in the class, which would make it one of kvtune's


class DimRows(RowState[Dim]):
    def begin(self, rows, index, prompts):
        BEGUN.extend((len(one.visual), int(one.visual.sum()), one.outputs.numel() > 0) for one in prompts)

    def change_weights(self, seen, weights):
        changed = weights.clone()
        gain = self.at(seen, "gain", weights)
        changed[..., : seen.prompt] *= gain.where(seen.visual[:, None], gain.new_ones(()))
        return (changed / changed.sum(-1, keepdim=True)).where(self.acting(seen), weights)


SMOOTHED = Stack.of(KVSmooth(0.6, 5, 0.4, 0, 3, target="attention_output"), Dim(0.1))


@pytest.mark.parametrize("on", ["cpu", "gpu"])
@pytest.mark.parametrize("method", [Dim(0.0), Dim(0.3, 1, 2), SMOOTHED], ids=["all layers", "one layer", "stack"])
def test_both_know_the_same_of_the_prompt(method, on, monkeypatch):
    if on == "gpu":
        like_a_gpu(monkeypatch)
    BEGUN.clear()
    expected = [reference_tokens(vlm(), image, method, 12) for image in IMAGES[:3]]
    around, without = sorted(BEGUN), [reference_tokens(vlm(), image, None, 12) for image in IMAGES[:3]]
    assert expected != without, "the method does something"
    BEGUN.clear()
    requests = [CaptionRequest(number, image, method) for number, image in enumerate(IMAGES[:3])]
    captions = {one.image_id: one for one in Captioner(vlm(), max_new_tokens=12).run(requests)}
    assert [(captions[number].token_ids, captions[number].finish_reason) for number in range(3)] == expected
    assert [one[:2] for one in sorted(BEGUN)] == [one[:2] for one in around] and len(around) == 3
    assert all(visual for _, visual, _ in around)


def test_a_prompt_without_an_image_is_refused():
    ids = torch.tensor([[1, 20, 21, 22]])
    model = vlm().hf_model
    with Dim(0.5)(model), pytest.raises(RequestError, match="visual tokens, but a prompt has none"):
        model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=2)
