"""Prompts kept in host memory: the vision tower runs once an image, and captions are the same with and without."""

import threading

import pytest
import torch
from graph_like import like_a_gpu
from small_models import small_llava
from small_vlms import random_images, reference_tokens, small_vlm

from kvtune import KVSmooth
from kvtune.captioning import Captioner, CaptionRequest, continuous, memory, prompts
from kvtune.captioning.prepared_ahead import PreparedAhead
from kvtune.captioning.prompts import Prompts
from kvtune.errors import RequestError
from kvtune.host_memory import HostMemory

IMAGES = random_images(5)
METHOD = KVSmooth(0.5, 3, 0.5, 0, 3)
MODEL = small_vlm(small_llava(0, kv_heads=2))


@pytest.fixture
def seen(monkeypatch):
    """Sizes of the batches that go through the vision tower, and of those that are prepared."""
    seen = {"tower": [], "prepared": []}
    tower, prepare = MODEL.hf_model.model.vision_tower, type(MODEL).prepare_on_host

    def note_tower(module, arguments, keywords):
        seen["tower"].append(len(arguments[0] if arguments else keywords["pixel_values"]))

    def note_prepared(vlm, images, *prompt):
        seen["prepared"].append(len(images))
        return prepare(vlm, images, *prompt)

    monkeypatch.setattr(type(MODEL), "prepare_on_host", note_prepared)
    hook = tower.register_forward_pre_hook(note_tower, with_kwargs=True)
    yield seen
    hook.remove()


def requests(methods=(None, METHOD)):
    return [CaptionRequest(n, image, one, (n, one)) for n, image in enumerate(IMAGES) for one in methods]


def test_later_rounds_see_no_image_again(seen):
    captioner = Captioner(MODEL, max_new_tokens=12, lanes=4)
    first = {caption.tag: caption for caption in captioner.run(requests())}
    assert sum(seen["tower"]) == sum(seen["prepared"]) == len(IMAGES)
    second = {caption.tag: caption for caption in captioner.run(requests())}
    assert sum(seen["tower"]) == sum(seen["prepared"]) == len(IMAGES)
    assert first == second
    for (n, method), caption in second.items():
        assert caption.token_ids == reference_tokens(MODEL, IMAGES[n], method, 12)[0]


def test_images_that_make_long_prompts_go_through_the_tower_in_smaller_batches(seen, monkeypatch):
    together = Prompts(MODEL).of(list("abcde"), IMAGES)
    assert seen["tower"] == [5]
    monkeypatch.setattr(memory, "PREFILL_TOKENS", 2 * max(prompt.length for prompt in together))
    found = Prompts(MODEL)
    found.expect(list("abcde"), IMAGES)
    for apart, one in zip(found.of(list("abcde"), IMAGES), together, strict=True):
        assert torch.allclose(apart.embeddings, one.embeddings)
    assert seen["tower"] == [5, 2, 2, 1] and seen["prepared"] == [5, 5] and found.embedded == 5


def test_without_room_captions_are_the_same(seen, monkeypatch):
    monkeypatch.setattr(prompts, "host_memory", lambda: HostMemory(2**34, 0))
    captioner = Captioner(MODEL, max_new_tokens=12, lanes=4)
    runs = [{caption.tag: caption for caption in captioner.run(requests())} for _ in range(2)]
    assert runs[0] == runs[1] == {one.tag: one for one in Captioner(MODEL, max_new_tokens=12).run(requests())}
    assert sum(seen["tower"]) >= 3 * len(IMAGES)


def test_what_is_asked_is_said_once(caplog):
    def said():
        return [line for line in caplog.messages if line.startswith("question")]

    with caplog.at_level("INFO", logger="kvtune.captioning.question"):
        captioner = Captioner(MODEL, max_new_tokens=2)
        for _ in range(2):
            list(captioner.run(requests()[:1]))
        assert said() == ["question: Please describe this image in detail."]
        list(captioner.changed(prompt="What is\nthis?").run(requests()[:1]))
        assert said()[1:] == ["question: What is this?"]


def test_what_is_kept_stays_within_the_limit_and_serves_every_round():
    one = Prompts(MODEL).of(["0"], IMAGES[:1])[0]
    size = one.nbytes
    kept = Prompts(MODEL, limit=int(2.5 * 1.2 * size))  # prompts are of somewhat different lengths
    for _ in range(3):
        for n, image in enumerate(IMAGES):
            kept.of([str(n)], [image])
    assert 0 < kept.kept_bytes <= 2.5 * 1.2 * size
    assert kept.embedded in {15 - 2 * fits for fits in (2, 3)}


def test_a_kept_prompt_holds_nothing_of_its_batch():
    kept = Prompts(MODEL)
    kept.of(list("01234"), IMAGES)
    held = [tensor for prompt in kept._leaving.values() for tensor in prompt.tensors]
    assert sum(tensor.untyped_storage().nbytes() for tensor in held) == kept.kept_bytes


def test_a_prompt_is_what_the_model_gives_its_decoder():
    given = {}
    hook = MODEL.decoder.register_forward_pre_hook(lambda _, a, keywords: given.update(keywords), with_kwargs=True)
    alone = Prompts(MODEL).of(["0"], IMAGES[:1])[0]
    inputs = MODEL.prepare(IMAGES[:1])
    with torch.no_grad():
        MODEL.hf_model(**inputs)
    hook.remove()
    torch.testing.assert_close(alone.embeddings, given["inputs_embeds"][0], rtol=0, atol=0)
    assert alone.positions.tolist() == list(range(alone.length))
    assert alone.next_position == alone.length
    assert alone.visual.mask.tolist() == (inputs["input_ids"][0] == 5).tolist()
    assert (alone.visual.first, alone.visual.end) == (1, 17)


def same(prompts, others):
    return all(
        torch.equal(one, other)
        for prompt, another in zip(prompts, others, strict=True)
        for one, other in zip(prompt.tensors, another.tensors, strict=True)
    )


def test_what_was_prepared_ahead_is_what_is_prepared_when_it_is_wanted(seen, tmp_path):
    files = [tmp_path / f"{n}.png" for n in range(5)]
    for file, image in zip(files, IMAGES, strict=True):
        image.save(file)
    contents, ahead, plain = list("01234"), Prompts(MODEL), Prompts(MODEL)
    ahead.expect(contents[:3], files[:3])
    assert same(ahead.of(contents[:3], files[:3]), plain.of(contents[:3], IMAGES[:3]))
    ahead.expect(contents[2:], files[2:])  # one is kept
    assert same(ahead.of(contents[2:], files[2:]), plain.of(contents[2:], IMAGES[2:]))
    assert seen["prepared"] == [3, 3, 2, 2]


def test_other_images_than_were_expected(tmp_path):
    contents, ahead = list("01234"), Prompts(MODEL)
    ahead.expect(["x", "y"], [tmp_path / "missing.png", IMAGES[0]])
    assert same(ahead.of(contents, IMAGES), Prompts(MODEL).of(contents, IMAGES))
    with pytest.raises(RequestError, match=r"missing\.png"):
        ahead.of(["x", "y"], [tmp_path / "missing.png", IMAGES[0]])
    other = Prompts(MODEL)
    other.expect(contents[1::-1], IMAGES[1::-1])  # the same in another order
    assert same(other.of(contents[:2], IMAGES[:2]), Prompts(MODEL).of(contents[:2], IMAGES[:2]))
    ahead.expect(["x"], [tmp_path / "missing.png"])
    with pytest.raises(RequestError, match=r"missing\.png"):
        ahead.of(["x"], [tmp_path / "missing.png"])


def test_a_tokenizer_is_not_copied_while_it_may_be_used():
    """Its copy, for the thread that prepares, is made by who uses it, before it does so again."""
    threads = []

    class Processor(type(MODEL.processor)):
        def __deepcopy__(self, memo):
            threads.append(threading.current_thread())
            return self

    vlm = small_vlm()
    object.__setattr__(vlm, "processor", Processor())
    ahead = PreparedAhead(vlm, None)
    ahead.expect(["a"], IMAGES[:1])
    assert ahead.take(["a"]) is not None
    assert threads == [threading.current_thread()]


def test_images_of_other_palettes_are_other_images():
    """Though all of their pixels have the same numbers in them."""
    pictures = [image.quantize(8) for image in IMAGES[:2]]
    pictures[1].frombytes(pictures[0].tobytes())
    requests = [CaptionRequest(n, picture, None, n) for n, picture in enumerate(pictures)]
    written = {one.tag: one.token_ids for one in Captioner(MODEL, max_new_tokens=9).run(requests)}
    for n, picture in enumerate(pictures):
        assert written[n] == reference_tokens(MODEL, picture.convert("RGB"), None, 9)[0]


def test_on_a_gpu_prompts_are_run_together_and_prepared_ahead(monkeypatch):
    """Images by the dozen, two captions of each, eight rows: what comes onto the grid was expected, and not alone."""
    like_a_gpu(monkeypatch)
    monkeypatch.setattr(continuous, "AHEAD", 1.0)  # of the few pages that these images want
    batches, ahead = [], []
    take = PreparedAhead.take

    def taken(own, contents):
        batches.append(len(contents))
        found = take(own, contents)
        ahead.append(found is not None)
        return found

    monkeypatch.setattr(PreparedAhead, "take", taken)
    images = random_images(24)
    wanted = [CaptionRequest(n, image, one, (n, one)) for n, image in enumerate(images) for one in (None, METHOD)]
    captions = {one.tag: one for one in Captioner(MODEL, max_new_tokens=9, lanes=8, keep_images=False).run(wanted)}
    for (n, method), caption in captions.items():
        assert caption.token_ids == reference_tokens(MODEL, images[n], method, 9)[0]
    assert len(captions) == len(wanted)
    steady = slice(2, None)  # the plan looks at some images, and then the grid is filled
    assert sum(batches[steady]) / len(batches[steady]) > 1.5
    assert ahead[steady] and all(ahead[steady])
