"""Traced captions: the same captions as the engine's, and what ends them. Values: tests/models/test_families.py."""

import numpy as np
import pytest
import torch
from PIL import Image
from small_vlms import SmallLlava, random_images, small_vlm

from kvtune import KVSmooth
from kvtune.captioning import Captioner, CaptionRequest
from kvtune.captioning.trace import Word, spelt, trace_caption
from kvtune.demo import demo_model_path
from kvtune.demo.coco import FIRST_ID
from kvtune.demo.scenes import render
from kvtune.errors import KvtuneError, RequestError
from kvtune.models import load_model

METHOD = KVSmooth(0.6, 4, 0.4, 0, 3)
WORDS = [Word("nine", 9, "9", True), Word("ten", 10, "10", False)]


class Stopping(SmallLlava):
    """Ends captions at any of these pairs of tokens too."""

    stops = ()

    def stop_sequences(self, vlm):
        return [list(stop) for stop in self.stops]


@pytest.mark.parametrize("method", [None, METHOD])
@pytest.mark.parametrize("ending", ["eos", "stop", "length"])
def test_captions_are_those_of_the_engine_however_they_end(method, ending):
    family = Stopping()
    vlm, (image,) = small_vlm(family=family, eos=()), random_images(1, seed=4)
    free = trace_caption(vlm, image, method, WORDS, max_new_tokens=12).token_ids
    if ending == "eos":
        vlm.hf_model.generation_config.eos_token_id = [free[6]]
    elif ending == "stop":
        family.stops = [free[5:7]]
    trace = trace_caption(vlm, image, method, WORDS, max_new_tokens=12)
    (expected,) = Captioner(vlm, max_new_tokens=12).run([CaptionRequest(0, image, method)])
    assert trace.caption == expected and expected.finish_reason == ending
    ends = {"eos": 1, "stop": 2, "length": 0}[ending]
    assert len(trace.token_ids) == len(expected.token_ids) + ends == len(trace.tokens) == len(trace.starts)
    assert trace.token_ids[: len(expected.token_ids)] == expected.token_ids
    # The last token is chosen and not read.
    assert np.isnan(trace.entropy[-1]).all() and not np.isnan(trace.entropy[:-1]).any()
    assert np.isnan(trace.smoothing[-1]).all() and np.isnan(trace.smoothing).all() == (method is None)
    assert trace.ranks.shape == trace.logits.shape == (len(trace.token_ids), 2)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_are_no_caption(number):
    vlm = small_vlm(eos=())
    steps = []

    def breaks(module, arguments, output):
        steps.append(len(output))
        return output if len(steps) < 4 else torch.full_like(output, number)

    vlm.hf_model.get_output_embeddings().register_forward_hook(breaks)
    with pytest.raises(KvtuneError, match="logits for the image are NaN or infinite: its weights are damaged"):
        trace_caption(vlm, random_images(1)[0], METHOD, WORDS, max_new_tokens=12)


def test_greedy_decoding_takes_rank_one():
    vlm = small_vlm(eos=())
    words = [Word(str(token), token, str(token), True) for token in range(60)]
    trace = trace_caption(vlm, random_images(1)[0], METHOD, words, max_new_tokens=20)
    assert [int(row.argmin()) for row in trace.ranks] == list(trace.token_ids)
    for row in trace.ranks:
        assert sorted(row) == list(range(1, 61))


@pytest.fixture(scope="module")
def demo():
    return load_model(demo_model_path(), device="cpu")


def test_a_word_is_its_first_token_in_the_middle_of_a_sentence(demo):
    dog, light = spelt(demo, ["dog", "traffic light"])
    assert (dog.token, dog.is_whole) == ("▁dog", True) and (light.token, light.is_whole) == ("▁traffic", False)
    assert demo.tokenizer.convert_ids_to_tokens(dog.token_id) == "▁dog"
    with pytest.raises(RequestError, match="no word 'zebra' in its vocabulary"):
        spelt(demo, ["dog", "zebra"])


def test_each_token_begins_where_the_text_before_it_ends(demo):
    trace = trace_caption(demo, Image.fromarray(render(0, FIRST_ID).pixels), None, ())
    text, written = trace.caption.text, len(trace.caption.token_ids)
    pieces = [text[start:end] for start, end in zip(trace.starts, [*trace.starts[1:], len(text)], strict=True)]
    assert "".join(pieces) == text and set(pieces[written:]) <= {""}
    assert [piece.strip() for piece in pieces[:written]] == [token.strip("▁") for token in trace.tokens[:written]]
