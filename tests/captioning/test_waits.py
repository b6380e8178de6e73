"""What makes the host wait for a GPU while images come in and prompts are run, counted on a pretended card."""

import copy
import dataclasses
import functools
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import checkpoints
import numpy as np
import pytest
import torch
from counted_waits import CARD, CountedWaits
from engine_requests import IMAGES, METHODS, vlm
from graph_like import like_a_gpu
from PIL import Image
from pretended_cards import PretendedCards

import kvtune
from kvtune.captioning import Captioner, CaptionRequest, depths, paged_grid, side_stream
from kvtune.captioning import prompts as prompts_module
from kvtune.captioning.prefill import prefill
from kvtune.captioning.prompts import Prompts
from kvtune.captioning.side_stream import SideStream
from kvtune.methods import DSCR
from kvtune.methods.facts import Depth
from kvtune.models import load_model
from kvtune.models.spread import spread

OWN = str(Path(kvtune.__file__).parent)


@functools.cache
def checkpoint(kind):
    with TemporaryDirectory() as folder:
        return load_model(getattr(checkpoints, f"save_{kind}")(Path(folder), 3), device="cpu", dtype="float32")


@contextmanager
def on_card(model):
    """A copy of a small model on a pretended card."""
    with PretendedCards() as cards:
        other = dataclasses.replace(model, hf_model=copy.deepcopy(model.hf_model))
        spread(other.hf_model, [CARD], [range(model.n_layers)])
        with torch.inference_mode():
            yield other, cards


def pictures(count):
    draw = np.random.default_rng(0)
    return [Image.fromarray(draw.integers(0, 256, (28 + 20 * n, 40, 3), dtype=np.uint8)) for n in range(count)]


@pytest.mark.parametrize("kind", ["llava", "instructblip", "minigpt4", "qwen"])
def test_however_many_images_come_kvtune_waits_for_their_positions_alone(kind):
    with on_card(checkpoint(kind)) as (model, cards):
        for count in (1, 5):
            found, contents = Prompts(model), [str(n) for n in range(count)]
            with CountedWaits(cards) as waits:
                new = found.of(contents, pictures(count))
            own = {place for place in waits.found if place[1].startswith(OWN) and "minigpt4" not in place[1]}
            windows = {place for place in own if Path(place[1]).name == "vision_windows.py"}
            assert {Path(file).name for _, file, _ in own - windows} == {"decoder_inputs.py"}
            assert sum(waits.found[place] for place in own - windows) <= 2
            # Where windows and images end, once for all layers of a tower: transformers would ask for it in each.
            assert sum(waits.found[place] for place in windows) == (2 if kind == "qwen" else 0)
            with CountedWaits(cards) as waits:
                list(prefill(model, new))
                list(prefill(model, found.of(contents, [])))
            assert not waits.found
            assert all(tensor.device == CARD for prompt in new for tensor in prompt.tensors)


def test_where_windows_end_is_asked_once_for_all_layers():
    with on_card(checkpoint("qwen")) as (model, cards):
        model.hf_model.model.visual.fullatt_block_indexes = []  # both layers have windows
        with CountedWaits(cards) as waits:
            Prompts(model).of(["a"], pictures(1))
    assert sum(n for (_, file, _), n in waits.found.items() if Path(file).name == "vision_windows.py") == 1


@pytest.mark.parametrize("method", METHODS[1:], ids=lambda method: method.name)
def test_what_methods_want_to_know_of_prompts_is_not_waited_for(method):
    """But for what is the same of all prompts of a model, or of one length."""
    facts = {fact for fact in method.facts if not isinstance(fact, Depth)}
    with on_card(vlm()) as (model, cards):
        new = Prompts(model).of(list("abc"), IMAGES[:3])
        list(prefill(model, new, facts))
        with CountedWaits(cards) as waits:
            assert len(list(prefill(model, new, facts))) == 3
    assert not waits.found


def test_a_later_round_waits_for_nothing_under_any_method(monkeypatch):
    """But for the tokens of the step before the last."""
    like_a_gpu(monkeypatch)
    monkeypatch.setattr(paged_grid, "step_graphs", lambda *_: None)
    monkeypatch.setattr(depths, "depth_maps", lambda *_: lambda image, path: np.arange(6.0).reshape(2, 3))
    methods = [*METHODS, DSCR(0.1, 0.1, 0.6, 0.8, 0, 3, depth="ramp")]
    requests = [CaptionRequest(n, IMAGES[n % 3], method, n) for n, method in enumerate(methods)]
    with on_card(vlm()) as (model, cards):
        captioner = Captioner(model, max_new_tokens=6, lanes=20)
        first = {caption.tag: caption.token_ids for caption in captioner.run(requests)}
        with CountedWaits(cards) as waits:
            again = {caption.tag: caption.token_ids for caption in captioner.run(requests)}
    assert not waits.found
    assert first == again and len(first) == len(methods)


def test_a_prompt_on_its_way_to_the_host_is_not_looked_at_before_it_is_there(monkeypatch):
    """A copy out of which nothing can be read before it is waited for, at the next batch and not before."""
    on_their_way, arrivals = [], []

    def leaving(tensor):
        on_their_way.append((torch.zeros_like(tensor), tensor.clone()))
        return on_their_way[-1][0]

    class Arrival:
        def __init__(self, device):
            arrivals.append(self)
            self.copies = on_their_way.copy()
            on_their_way.clear()

        def wait(self):
            for there, tensor in self.copies:
                there.copy_(tensor)
            self.copies.clear()

    monkeypatch.setattr(prompts_module, "leaving", leaving)
    monkeypatch.setattr(prompts_module, "Arrival", Arrival)
    found = Prompts(vlm())
    new = found.of(["a", "b"], IMAGES[:2])
    found.expect(["a", "b", "c"], IMAGES[:3])
    assert arrivals[-1].copies
    other = found.of(["c"], IMAGES[2:3])
    again = found.of(["a", "b", "c"], IMAGES[:3])
    assert found.embedded == 3
    for one, kept in zip([*new, *other], again, strict=True):
        for tensor, there in zip(one.tensors, kept.tensors, strict=True):
            assert torch.equal(tensor, there)


def test_images_go_through_the_vision_tower_beside_the_steps(monkeypatch):
    """What is done in the second stream of a GPU, and what is said of it to the first."""
    said, streams = [], ["steps"]

    class Stream:
        def __init__(self, name):
            self.name = name

        def wait_stream(self, other):
            said.append(f"{self.name} waits for {other.name}")

    @contextmanager
    def stream(one):
        streams.append(one.name)
        yield
        streams.pop()

    def record_stream(tensor, one):
        said.append((tensor.data_ptr(), one.name))

    monkeypatch.setattr(side_stream, "side_stream", lambda device: Stream("aside"))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream(streams[-1]))
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.Tensor, "record_stream", record_stream)
    monkeypatch.setattr(prompts_module, "SideStream", lambda device: SideStream(torch.device("cuda")))
    found = Prompts(vlm())
    tower = vlm().hf_model.model.vision_tower
    hook = tower.register_forward_pre_hook(lambda *_: said.append(f"tower {streams[-1]}"))
    new = found.of(["a", "b"], IMAGES[:2])
    hook.remove()
    expected = ["aside waits for steps", "tower aside", "steps waits for aside"]
    assert said == expected + [(tensor.data_ptr(), "steps") for prompt in new for tensor in prompt.tensors]
    found.of(["a"], IMAGES[:1])
    assert len(said) == len(expected) + sum(len(prompt.tensors) for prompt in new)
