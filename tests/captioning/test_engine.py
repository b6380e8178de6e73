"""The engine's captions equal those of generate() under the method, whatever shares the grid."""

import numpy as np
import pytest
import torch
from engine_requests import IMAGES, METHODS, check, expected, requests_of, vlm
from graph_like import like_a_gpu
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import small_llava
from small_vlms import reference_tokens, small_vlm
from transformers import LlavaConfig, LlavaForConditionalGeneration, MistralConfig

from kvtune import KVSmooth
from kvtune.captioning import Captioner, CaptionRequest, paged_grid
from kvtune.captioning.grid import Grid
from kvtune.captioning.group_decoding import GroupDecoding
from kvtune.captioning.memory import predict
from kvtune.captioning.paged_decoding import PagedDecoding
from kvtune.captioning.paged_plan import plan_pages
from kvtune.errors import KvtuneError, RequestError
from kvtune.methods.kvsmooth import KVSmoothRows


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(["grouped", "multi-head", "one"]),
    pairs=st.lists(st.tuples(st.integers(0, 4), st.integers(0, len(METHODS) - 1)), min_size=1, max_size=24),
    lanes=st.integers(1, 10),
    max_new_tokens=st.sampled_from([1, 2, 7, 20]),
)
def test_any_mixture_equals_generate(kind, pairs, lanes, max_new_tokens):
    requests = requests_of(pairs)
    captions = list(Captioner(vlm(kind), max_new_tokens=max_new_tokens, lanes=lanes).run(requests))
    assert check(captions, requests, kind, max_new_tokens).keys() == set(range(len(requests)))


@settings(max_examples=15, deadline=None)
@given(
    pairs=st.lists(st.tuples(st.integers(0, 4), st.integers(0, len(METHODS) - 1)), min_size=4, max_size=24),
    lanes=st.integers(1, 8),
    withdrawals=st.dictionaries(st.integers(0, 10), st.integers(0, 23), max_size=6),
)
def test_withdrawn_requests_leave_the_others_as_they_are(pairs, lanes, withdrawals):
    requests = requests_of(pairs)
    captioner = Captioner(vlm(), max_new_tokens=20, lanes=lanes)
    captions, withdrawn = [], set()
    for count, caption in enumerate(captioner.run(iter(requests))):
        assert caption.tag not in withdrawn
        captions.append(caption)
        if count in withdrawals:
            captioner.withdraw(withdrawals[count])
            withdrawn.add(withdrawals[count])
    seen = check(captions, requests, "grouped", 20)
    assert set(range(len(requests))) - withdrawn <= seen.keys()


def test_a_tag_that_was_withdrawn_is_captioned_in_the_next_run():
    requests = [CaptionRequest(100 + image, IMAGES[image], METHODS[1], tag=image % 2) for image in range(4)]
    captioner = Captioner(vlm(), max_new_tokens=6, lanes=1)
    running = captioner.run(requests)
    first = next(running)
    captioner.withdraw(1 - first.tag)
    assert {caption.tag for caption in running} == {first.tag}
    assert sorted(caption.tag for caption in captioner.run(requests)) == [0, 0, 1, 1]


def test_requests_that_come_while_others_are_decoded_join_them():
    requests = requests_of([(image, method) for image in range(4) for method in (0, 1)])
    asked = []

    def stream():
        for request in requests:
            yield request
            asked.append(len(seen))
            yield None  # no more for now

    captioner = Captioner(vlm(), max_new_tokens=20, lanes=4)
    seen = []
    for caption in captioner.run(stream()):
        seen.append(caption)
    assert asked[-1] < len(requests) - 1, "the last came before the others had ended"
    check(seen, requests, "grouped", 20)
    assert len(seen) == len(requests)


@pytest.mark.parametrize("paged", [False, True])
@pytest.mark.parametrize("method", [11, 12])
def test_what_a_method_must_know_of_a_prompt_is_found_out_when_it_comes(method, paged, monkeypatch):
    """Its image is on the grid already, for a caption of which nobody had to know anything."""
    if paged:
        like_a_gpu(monkeypatch)
    requests = requests_of([(0, 0), (0, method)])
    captions = list(Captioner(vlm(), max_new_tokens=20, lanes=4).run([requests[0], None, None, requests[1]]))
    assert len(check(captions, requests, "grouped", 20)) == 2


def test_requests_are_pulled_only_as_there_is_room():
    pulled = []

    def stream():
        for n in range(600):
            pulled.append(n)
            yield CaptionRequest(n, IMAGES[n % 5], METHODS[1], tag=n)

    captioner = Captioner(vlm(), max_new_tokens=2, lanes=8)
    running = captioner.run(stream())
    next(running)
    assert len(pulled) <= 512 + 2 * 8
    assert len([*running]) == 599


def test_images_of_equal_content_share_a_prefill(monkeypatch, tmp_path):
    from kvtune.captioning import decoding as module

    calls = []
    original = module.prefill
    monkeypatch.setattr(
        module, "prefill", lambda vlm, prompts, *rest: calls.append(len(prompts)) or original(vlm, prompts, *rest)
    )
    path = tmp_path / "one.png"
    IMAGES[0].save(path)
    requests = [CaptionRequest(n, IMAGES[0].copy() if n % 2 else IMAGES[0], METHODS[n % 6]) for n in range(8)]
    list(Captioner(vlm(), max_new_tokens=4, lanes=8).run(requests))
    assert sum(calls) <= 2  # at most a second copy for a free group
    calls.clear()
    list(Captioner(vlm(), max_new_tokens=4, lanes=1).run([CaptionRequest(n, path, METHODS[n % 6]) for n in range(8)]))
    assert sum(calls) == 1


def test_the_last_captions_of_a_run_go_on_alone(monkeypatch):
    """When one caption is left of twelve, eleven idle rows are not decoded with it."""
    sizes = []
    original = Grid.step
    monkeypatch.setattr(Grid, "step", lambda self, running: sizes.append(self.rows) or original(self, running))
    requests = [CaptionRequest(n, IMAGES[n % 5], METHODS[1 + n % 5], n, 3 if n else 20) for n in range(12)]
    model = small_vlm(small_llava(0, kv_heads=2), eos=())
    captions = {caption.tag: caption for caption in Captioner(model, max_new_tokens=20, lanes=12).run(requests)}
    assert (max(sizes), sizes[-1]) == (12, 1)
    for number, request in enumerate(requests):
        tokens, _ = reference_tokens(model, request.image, request.method, request.max_new_tokens)
        assert captions[number].token_ids == tokens


def test_out_of_memory_halves_the_grid_and_loses_nothing(monkeypatch, caplog):
    sizes = []
    original = Grid.step

    def limited(self, running):
        sizes.append(self.rows)
        if self.rows > 3 and len(sizes) > 3:
            raise torch.OutOfMemoryError("a limit of the test's own")
        return original(self, running)

    monkeypatch.setattr(Grid, "step", limited)
    requests = requests_of([(n % 5, n % len(METHODS)) for n in range(20)])
    captions = list(Captioner(vlm(), max_new_tokens=20, lanes=12).run(requests))
    assert check(captions, requests, "grouped", 20).keys() == set(range(20))
    assert sizes[0] > 3 >= sizes[-1]
    assert "out of device memory: going on with" in caplog.text


def test_no_room_for_a_single_caption_is_said(monkeypatch):
    def never(self, running):
        raise torch.OutOfMemoryError("never")

    monkeypatch.setattr(Grid, "step", never)
    with pytest.raises(KvtuneError, match="single caption"):
        list(Captioner(vlm(), lanes=4).run(requests_of([(0, 1), (1, 1)])))


def test_the_model_is_free_between_captions():
    """A caller may use the model while the run is suspended."""
    model = vlm()
    before = model.decoder.config._attn_implementation
    running = Captioner(model, max_new_tokens=20, lanes=2).run(requests_of([(n % 5, 1) for n in range(6)]))
    next(running)
    assert model.decoder.config._attn_implementation == before
    assert reference_tokens(model, IMAGES[3], METHODS[1], 20) == expected("grouped", 3, METHODS[1], 20)
    assert len(list(running)) == 5


def test_a_method_that_does_not_fit_is_refused():
    with pytest.raises(RequestError, match="which has 3"):
        list(Captioner(vlm()).run([CaptionRequest(0, IMAGES[0], KVSmooth(0.9))]))


def test_a_limit_below_one_is_refused():
    with pytest.raises(RequestError, match="max_new_tokens"):
        Captioner(vlm(), max_new_tokens=0)


def small_mistral(window):
    """A LLaVA whose decoder has layers that see ``window`` tokens."""
    model = small_llava(0, kv_heads=2)
    text = MistralConfig(**{**model.config.text_config.to_dict(), "model_type": "mistral", "sliding_window": window})
    torch.manual_seed(0)
    model = LlavaForConditionalGeneration(
        LlavaConfig(vision_config=model.config.vision_config, text_config=text, image_token_id=5, image_seq_length=16)
    )
    model.generation_config.pad_token_id = 0
    return small_vlm(model.double().eval(), eos=())


@pytest.mark.parametrize("paged", [False, True])
def test_sliding_windows_are_refused_where_they_would_hide_something(paged, monkeypatch):
    if paged:
        like_a_gpu(monkeypatch)
    prompt = 17 + 1 + int(np.asarray(IMAGES[0])[0, 0, 0]) % 5
    requests = [CaptionRequest(0, IMAGES[0], METHODS[2])]
    window = prompt + 12
    (caption,) = Captioner(small_mistral(window), max_new_tokens=12).run(requests)
    assert caption.token_ids == reference_tokens(small_mistral(None), IMAGES[0], METHODS[2], 12)[0]
    with pytest.raises(RequestError, match=rf"only the last {window} tokens.* at most 12 new tokens fit"):
        list(Captioner(small_mistral(window), max_new_tokens=13).run(requests))
    with pytest.raises(RequestError, match="no caption fits"):
        list(Captioner(small_mistral(12), max_new_tokens=13).run(requests))


def test_no_requests_give_no_captions():
    assert list(Captioner(vlm()).run([])) == []


@pytest.mark.parametrize("paged", [False, True])
def test_cached_keys_and_entropies_equal_the_naive_reference(paged, monkeypatch):
    """Key for key and entropy for entropy in float32, against loops over one caption."""
    from naive_kvsmooth import naive_decode

    model = small_vlm(small_llava(0, kv_heads=2, dtype=torch.float32), eos=())
    method = METHODS[2]
    captioner = Captioner(model, max_new_tokens=60, lanes=4)
    if paged:
        decoding = PagedDecoding(model, captioner.prompts_of, 60, plan_pages(model, 20, 60, 4, 2, 4), captioner._fused)
    else:
        decoding = GroupDecoding(model, captioner.prompts_of, 60, predict(model, 2, 2, 20, 60))
    for image in (0, 1):
        for one in (method, None):
            decoding.add(image, CaptionRequest(image, IMAGES[image], one, tag=(image, one is None)))
    grid, entropies = decoding.grid, []
    original = KVSmoothRows.end_step

    def end_step(state, step):
        entropies.append(step.entropies(state.layers).clone())
        original(state, step)

    monkeypatch.setattr(KVSmoothRows, "end_step", end_step)
    for _ in range(43):
        decoding.advance([])
    row_of = {request.tag: row for row, request in decoding.requests.items()}
    for image in (0, 1):
        inputs = model.prepare([IMAGES[image]])
        naive = naive_decode(model.hf_model, inputs, method.parameters(), 44)
        start, row = inputs["input_ids"].shape[1], row_of[image, False]
        for layer in range(3):
            if paged:
                pages = grid.pages.of(("row", row))
                caches = grid.cards[0].keys, grid.cards[0].values
                cached = [torch.cat([cache[layer, page] for page in pages], 1) for cache in caches]
            else:
                cached = [grid.suffix_keys[layer, row], grid.suffix_values[layer, row]]
            for own, all_keys in zip(cached, (naive.keys, naive.values), strict=True):
                torch.testing.assert_close(own[:, 1:44], all_keys[layer][0, :, start : start + 43], rtol=0, atol=1e-5)
            for step in range(43):
                assert entropies[step][layer][row].item() == pytest.approx(naive.entropies[step][layer], abs=1e-5)


@pytest.mark.parametrize("paged", [False, True])
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_end_the_run(paged, number, monkeypatch):
    """The caption that was whole before is not lost."""
    if paged:
        like_a_gpu(monkeypatch)
        monkeypatch.setattr(paged_grid, "step_graphs", lambda *_: None)  # a replay calls no hook
    model = small_vlm(small_llava(0, kv_heads=2), eos=())
    head = model.hf_model.get_output_embeddings()
    steps = []

    def breaks(module, arguments, output):
        if "forward" in vars(model.decoder):  # the decoder is recorded, and computes nothing
            return output
        steps.append(len(output))
        return output if len(steps) < 9 else torch.where(torch.arange(output.shape[-1]) == 7, number, output)

    hook = head.register_forward_hook(breaks)
    captions = []
    try:
        with pytest.raises(KvtuneError, match=r"logits for image 4\d are NaN or infinite: its weights are damaged"):
            for caption in Captioner(model, max_new_tokens=30, lanes=3).run(
                CaptionRequest(40 + n, IMAGES[n], METHODS[1], n, 4 if n == 1 else None) for n in range(3)
            ):
                captions.append(caption)
    finally:
        hook.remove()
    assert [caption.image_id for caption in captions] == [41]


def test_what_is_done_is_told_as_it_is_done():
    """Prompts and tokens rise, those in flight end at none, and every step and batch of prompts is told of."""
    requests = requests_of([(image, method) for image in range(5) for method in range(6)])
    seen, ended = [], 0
    captioner = Captioner(vlm(), max_new_tokens=20, lanes=12)

    def told(work):
        seen.append((work.prompts, work.tokens, work.in_flight, ended))

    for caption in captioner.run(requests, told):
        ended += len(caption.token_ids) + (caption.finish_reason != "length")
    assert [each[0] for each in seen] == sorted(each[0] for each in seen) and seen[-1][0] >= 5
    assert [each[1] for each in seen] == sorted(each[1] for each in seen)
    steps = [each for before, each in zip([(0, 0), *seen], seen, strict=False) if each[1] > before[1]]
    assert len(steps) >= captioner.steps > 20
    assert all(tokens == in_flight + ended for _, tokens, in_flight, ended in steps)
    assert seen[-1][1:] == (ended, 0, ended)


@pytest.mark.parametrize("after", [1, 3, 10, 25])
def test_a_run_can_be_ended_and_gives_what_has_ended_before(after):
    requests = requests_of([(image, method) for image in range(5) for method in range(6)])
    captions, calls = [], 0

    class Enough(BaseException):
        pass

    def told(work):
        nonlocal calls
        calls += 1
        if calls == after:
            raise Enough

    with pytest.raises(Enough):
        captions.extend(Captioner(vlm(), max_new_tokens=20, lanes=12).run(requests, told))
    assert calls == after
    check(captions, requests, "grouped", 20)


def test_captions_that_end_in_the_step_that_fails_are_given(monkeypatch):
    """Whatever fails, what has been written is not lost."""
    requests = requests_of([(0, 0), (1, 1)])
    captioner = Captioner(vlm(), max_new_tokens=4)
    original = GroupDecoding.advance

    def advance(self, done):
        stepped = original(self, done)
        if done:
            raise ValueError("broken")
        return stepped

    monkeypatch.setattr(GroupDecoding, "advance", advance)
    captions = []
    with pytest.raises(ValueError, match="broken"):
        for caption in captioner.run(requests):
            captions.append(caption)
    assert len(captions) >= 1
    check(captions, requests, "grouped", 4)
