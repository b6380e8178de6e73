"""KVSmooth against a naive reference, token for token and key for key, and everything generate() can do besides."""

import copy
import gc
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_kvsmooth import naive_decode
from small_models import EOS, llava_inputs, small_llava
from transformers import DynamicCache, LlamaForCausalLM, QuantizedCache, StaticCache

from kvtune import KVSmooth
from kvtune.errors import RequestError
from kvtune.hf import CACHE, text_decoder
from kvtune.methods.attach import attach

CASES = [
    {"lambda_ref": 0.9},
    {"lambda_ref": 0.5, "queue_length": 3, "clip_width": 0.5},
    {"lambda_ref": 0.2, "clip_width": 1.0, "queue_length": 1},
    {"lambda_ref": 0.7, "adaptive": False},
    {"lambda_ref": 1.0, "clip_width": 0.0},
    {"lambda_ref": 0.6, "target": "k"},
    {"lambda_ref": 0.6, "target": "attention_output"},
    {"lambda_ref": 0.8, "target": "attention_output", "adaptive": False},
    {"lambda_ref": 0.6, "start_layer": 0, "end_layer": 3},
    {"lambda_ref": 0.6, "start_layer": 2, "end_layer": 3},
    {"lambda_ref": 0.6, "start_layer": 0, "end_layer": 1, "target": "attention_output"},
]
STEPS = 24


def method_of(case):
    return KVSmooth(**{"start_layer": 1, "end_layer": 3, **case})


@pytest.fixture(scope="module")
def llava():
    return small_llava()


@pytest.fixture(scope="module")
def grouped():
    return small_llava(1, heads=4, kv_heads=2)


def alone(inputs, row):
    """One row of a batch without its padding."""
    length = int(inputs["attention_mask"][row].sum())
    return {
        key: value[row : row + 1, -length:] if value.ndim == 2 else value[row : row + 1]
        for key, value in inputs.items()
    }


def generate(model, inputs, **settings):
    settings = {"max_new_tokens": STEPS, "do_sample": False, "eos_token_id": None, **settings}
    with torch.no_grad():
        return model.generate(**inputs, **settings, return_dict_in_generate=True)


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_equals_the_naive_reference(case, kv_heads):
    model = small_llava(3, kv_heads=kv_heads)
    inputs = llava_inputs(model, [4], seed=7)
    method = method_of(case)
    expected = naive_decode(model, inputs, method.parameters(), STEPS)
    with method(model):
        result = generate(model, inputs)
    assert result.sequences[0, inputs["input_ids"].shape[1] :].tolist() == expected.tokens
    for layer, cached in enumerate(result[CACHE].layers):
        seen = cached.keys.shape[2]  # the naive loop feeds one token more
        torch.testing.assert_close(cached.keys, expected.keys[layer][:, :, :seen], rtol=0, atol=1e-5)
        torch.testing.assert_close(cached.values, expected.values[layer][:, :, :seen], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kv_heads", [4, 1])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_an_observer_sees_the_entropies_and_factors_of_the_naive_reference(case, kv_heads):
    model = small_llava(3, kv_heads=kv_heads)
    inputs = llava_inputs(model, [4], seed=7)
    method = method_of(case)
    expected = naive_decode(model, inputs, method.parameters(), STEPS)
    seen = []
    with attach(model, method, lambda *step: seen.append(step)):
        result = generate(model, inputs)
    assert result.sequences[0, inputs["input_ids"].shape[1] :].tolist() == expected.tokens
    assert len(seen) == STEPS - 1  # the last token is not fed
    for (entropy, smoothing), entropies, factors in zip(seen, expected.entropies, expected.factors, strict=False):
        assert entropy[:, 0].tolist() == pytest.approx(entropies, abs=1e-5)
        smoothed = range(method.start_layer, method.end_layer)
        assert [layer for layer in range(3) if not smoothing[layer, 0].isnan()] == list(smoothed)
        assert smoothing[smoothed, 0].tolist() == pytest.approx([factors[layer] for layer in smoothed], abs=1e-5)


def test_an_observer_changes_nothing_and_sees_models_without_a_method(llava):
    inputs = llava_inputs(llava, [4, 6])
    for methods in ([None, None], [METHOD, None]):
        with attach(llava, methods):
            expected = generate(llava, inputs)
        seen = []
        with attach(llava, methods, lambda *step, seen=seen: seen.append(step)):
            found = generate(llava, inputs)
        assert torch.equal(found.sequences, expected.sequences)
        for one, other in zip(found[CACHE].layers, expected[CACHE].layers, strict=True):
            assert torch.equal(one.keys, other.keys) and torch.equal(one.values, other.values)
        entropy, smoothing = map(torch.stack, zip(*seen, strict=True))
        assert entropy.shape == smoothing.shape == (STEPS - 1, 3, 2) and (entropy > 0).all()
        assert smoothing.isnan().all((0, 1)).tolist() == [method is None for method in methods]


def test_smoothing_changes_what_is_written(llava):
    inputs = llava_inputs(llava, [4])
    plain = generate(llava, inputs).sequences
    with KVSmooth(lambda_ref=0.9, start_layer=0, end_layer=3)(llava):
        smoothed = generate(llava, inputs).sequences
    assert not torch.equal(plain, smoothed)


def test_a_factor_of_nothing_gives_the_plain_tokens(llava):
    inputs = llava_inputs(llava, [4, 2])
    with KVSmooth(lambda_ref=0.0, clip_width=0.0, start_layer=0, end_layer=3)(llava):
        smoothed = generate(llava, inputs).sequences
    assert torch.equal(generate(llava, inputs).sequences, smoothed)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_rows_of_a_padded_batch_are_as_alone(grouped, case):
    lengths = [3, 9, 1]
    inputs = llava_inputs(grouped, lengths, seed=5)
    with method_of(case)(grouped):
        batch = generate(grouped, inputs).sequences
    for row in range(len(lengths)):
        expected = naive_decode(grouped, alone(inputs, row), method_of(case).parameters(), STEPS)
        assert batch[row, inputs["input_ids"].shape[1] :].tolist() == expected.tokens


def test_each_row_may_have_parameters_of_its_own(llava):
    methods = [None, *map(method_of, CASES)]
    inputs = llava_inputs(llava, [4] * len(methods), seed=5)
    inputs["input_ids"][:] = inputs["input_ids"][0]
    inputs["pixel_values"][:] = inputs["pixel_values"][0]
    with attach(llava, methods):
        batch = generate(llava, inputs).sequences
    one = {key: value[:1] for key, value in inputs.items()}
    for row, method in enumerate(methods):
        expected = naive_decode(llava, one, method.parameters() if method else None, STEPS)
        assert batch[row, inputs["input_ids"].shape[1] :].tolist() == expected.tokens


def what_an_attachment_touches(model):
    decoder = model.get_decoder()
    return (
        model.config._attn_implementation,
        decoder.config._attn_implementation,
        set(vars(model)),
        set(vars(decoder)),
        len(decoder._forward_hooks),
        len(decoder._forward_pre_hooks),
        len(decoder._forward_hooks_with_kwargs),
    )


def test_leaves_the_model_as_it_was(llava):
    inputs = llava_inputs(llava, [4])
    plain = generate(llava, inputs).sequences
    before = what_an_attachment_touches(llava)
    with pytest.raises(RuntimeError, match="on purpose"), KVSmooth(lambda_ref=0.9, start_layer=1, end_layer=3)(llava):
        generate(llava, inputs)
        raise RuntimeError("on purpose")
    assert what_an_attachment_touches(llava) == before
    assert torch.equal(generate(llava, inputs).sequences, plain)


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ({"lambda_ref": 1.1}, "lambda_ref must be a number from 0 to 1"),
        ({"lambda_ref": float("nan")}, "lambda_ref"),
        ({"lambda_ref": "0.5"}, "lambda_ref"),
        ({"lambda_ref": 0.5, "clip_width": -0.1}, "clip_width"),
        ({"lambda_ref": 0.5, "queue_length": 0}, "queue_length"),
        ({"lambda_ref": 0.5, "queue_length": 2.5}, "queue_length"),
        ({"lambda_ref": 0.5, "start_layer": 2, "end_layer": 2}, "end_layer must be greater"),
        ({"lambda_ref": 0.5, "start_layer": -1}, "start_layer"),
        ({"lambda_ref": 0.5, "target": "values"}, "target must be one of"),
        ({"lambda_ref": 0.5, "adaptive": "yes"}, "adaptive"),
    ],
)
def test_parameters_out_of_range_are_refused(case, message):
    with pytest.raises(RequestError, match=message):
        KVSmooth(**case)


def test_layers_outside_the_model_are_refused(llava):
    with pytest.raises(RequestError, match="which has 3; end_layer can be at most 3"), KVSmooth(lambda_ref=0.5)(llava):
        pass


def test_a_second_method_at_once_is_refused(llava):
    method = KVSmooth(lambda_ref=0.5, start_layer=1, end_layer=3)
    with method(llava), pytest.raises(RequestError, match="attached to this model already"), method(llava):
        pass


# What generate() can do beyond greedy decoding: right, or refused with a reason.

METHOD = KVSmooth(lambda_ref=0.6, queue_length=4, clip_width=0.4, start_layer=0, end_layer=3)


def test_sampling_smooths_along_the_sampled_tokens(llava):
    inputs = llava_inputs(llava, [4])
    with METHOD(llava):
        torch.manual_seed(0)
        result = generate(llava, inputs, do_sample=True, temperature=2.0)
        forced = result.sequences[0, inputs["input_ids"].shape[1] :].tolist()
        keys = replay(llava, inputs, forced[:-1])
    torch.testing.assert_close(result[CACHE].layers[2].keys, keys, rtol=0, atol=1e-9)


def replay(model, inputs, tokens):
    """Keys of the last layer after feeding ``tokens`` one at a time in a loop of one's own."""
    with torch.no_grad():
        out = model(**inputs, use_cache=True)
        mask = inputs["attention_mask"]
        for token in tokens:
            mask = torch.cat([mask, mask.new_ones(1, 1)], dim=1)
            out = model(
                input_ids=torch.tensor([[token]]),
                attention_mask=mask,
                position_ids=mask.sum(1, keepdim=True) - 1,
                **{CACHE: out[CACHE]},
            )
    return out[CACHE].layers[2].keys


def test_beams_take_their_state_along(llava):
    inputs = llava_inputs(llava, [4, 6], seed=2)
    with METHOD(llava):
        result = generate(llava, inputs, num_beams=4, num_return_sequences=4, output_scores=True, early_stopping=False)
    start = inputs["input_ids"].shape[1]
    for row in range(8):
        one = alone(inputs, row // 4)
        tokens = result.sequences[row, start:].tolist()
        with METHOD(llava), torch.no_grad():
            expected = score_of(llava, one, tokens)
        assert abs(expected - result.sequences_scores[row].item() * len(tokens)) < 1e-4  # scores are summed in float32


def score_of(model, inputs, tokens):
    """Log probability of ``tokens``, fed one at a time under the attached method."""
    out = model(**inputs, use_cache=True)
    mask, total = inputs["attention_mask"], 0.0
    for token in tokens:
        total += out.logits[0, -1].log_softmax(-1)[token].item()
        mask = torch.cat([mask, mask.new_ones(1, 1)], dim=1)
        out = model(
            input_ids=torch.tensor([[token]]),
            attention_mask=mask,
            position_ids=mask.sum(1, keepdim=True) - 1,
            **{CACHE: out[CACHE]},
        )
    return total


def test_rows_of_a_cache_that_are_repeated_and_selected_take_their_state_along(llava):
    inputs = llava_inputs(llava, [4, 4])

    def step(cache, tokens):
        place = torch.full((len(tokens), 1), int(cache.get_seq_length()))
        return llava(input_ids=torch.tensor(tokens)[:, None], position_ids=place, **{CACHE: cache}).logits[:, -1]

    def decoded(change):
        cache = llava(**inputs)[CACHE]
        step(cache, [7, 8])
        step(cache, [9, 7])
        order = change(cache)
        for token in (10, 11):
            logits = step(cache, [token + row for row in order])
        return logits[[order.index(0), order.index(1)]]

    def swapped(cache):
        cache.batch_repeat_interleave(2)
        cache.batch_select_indices(torch.tensor([2, 0]))
        return [1, 0]

    with METHOD(llava), torch.no_grad():
        torch.testing.assert_close(decoded(swapped), decoded(lambda cache: [0, 1]))


@pytest.mark.filterwarnings("ignore:`past_key_values` is deprecated")
@pytest.mark.parametrize("name", [CACHE, "past_key_values"])
def test_the_cache_is_found_under_either_name(llava, name):
    """transformers 5.24 renamed the argument and still takes the old name."""
    inputs = llava_inputs(llava, [4])
    start = inputs["input_ids"].shape[1]
    with METHOD(llava), torch.no_grad():
        expected = generate(llava, inputs, max_new_tokens=6).sequences[0, start:].tolist()
        cache, tokens = DynamicCache(config=llava.config.text_config), []
        out = llava(**inputs, **{name: cache})
        for _ in range(6):
            tokens.append(int(out.logits[0, -1].argmax()))
            embedded = llava.get_input_embeddings()(torch.tensor([tokens[-1:]]))
            place = torch.tensor([[start + len(tokens) - 1]])
            decoder = text_decoder(llava)
            hidden = decoder(inputs_embeds=embedded, position_ids=place, **{name: cache}).last_hidden_state
            out.logits = llava.get_output_embeddings()(hidden)
    assert tokens == expected


@pytest.mark.parametrize("case", [CASES[1], CASES[6]], ids=str)
def test_static_caches_give_the_same_tokens(llava, case):
    inputs = llava_inputs(llava, [4, 1])
    with method_of(case)(llava):
        dynamic = generate(llava, inputs).sequences
        assert torch.equal(generate(llava, inputs, cache_implementation="static").sequences, dynamic)


@pytest.mark.slow
def test_compiled_decoding_gives_the_same_tokens(llava):
    inputs = llava_inputs(llava, [4])
    start = inputs["input_ids"].shape[1]
    with METHOD(llava), torch.no_grad():
        expected = generate(llava, inputs, max_new_tokens=6).sequences[0, start:].tolist()
        cache = StaticCache(config=llava.config.text_config, max_cache_len=40)
        out = llava(**inputs, **{CACHE: cache})
        compiled = torch.compile(llava.forward, backend="eager")
        mask, tokens = inputs["attention_mask"], []
        for _ in range(6):
            tokens.append(int(out.logits[0, -1].argmax()))
            mask = torch.cat([mask, mask.new_ones(1, 1)], dim=1)
            out = compiled(
                input_ids=torch.tensor([tokens[-1:]]),
                attention_mask=mask,
                position_ids=mask.sum(1, keepdim=True) - 1,
                **{CACHE: cache},
            )
    torch._dynamo.reset()
    assert tokens == expected


def test_assisted_decoding_is_refused(llava):
    inputs = llava_inputs(llava, [8])
    inputs["input_ids"][0, -4:] = inputs["input_ids"][0, -8:-4]  # something to look up
    with METHOD(llava), pytest.raises(RequestError, match="prompt lookup"):
        generate(llava, inputs, prompt_lookup_num_tokens=3, eos_token_id=EOS)


def test_decoding_without_a_cache_is_refused(llava):
    with METHOD(llava), pytest.raises(RequestError, match="use_cache"):
        generate(llava, llava_inputs(llava, [4]), use_cache=False)


def test_a_pass_without_a_cache_is_refused_outside_generate(llava):
    """Nothing would be remembered of it, and nothing be done in it."""
    with METHOD(llava), torch.no_grad(), pytest.raises(RequestError, match="with use_cache=True"):
        llava(**llava_inputs(llava, [4]), use_cache=False)


@pytest.mark.parametrize("outside", [False, True])
def test_a_checkpoint_without_use_cache_is_told_what_to_ask_for(llava, outside, monkeypatch):
    monkeypatch.setattr(llava.generation_config, "use_cache", False)
    monkeypatch.setattr(llava.get_decoder().config, "use_cache", False)
    inputs = llava_inputs(llava, [4])
    with METHOD(llava), torch.no_grad():
        with pytest.raises(RequestError, match="with use_cache=True"):
            llava(**inputs) if outside else llava.generate(**inputs, max_new_tokens=3)
        llava(**inputs, use_cache=True) if outside else llava.generate(**inputs, max_new_tokens=3, use_cache=True)


def test_layers_that_keep_arguments_to_themselves_are_refused(llava):
    """They would write as without the method."""

    def forget(attention, arguments, keywords):
        return arguments, {name: value for name, value in keywords.items() if not name.startswith("kvtune")}

    hook = llava.get_decoder().layers[1].self_attn.register_forward_pre_hook(forget, with_kwargs=True)
    try:
        with METHOD(llava), pytest.raises(RequestError, match="does not reach it"):
            generate(llava, llava_inputs(llava, [4]))
    finally:
        hook.remove()


def test_a_cache_that_was_cropped_is_refused(llava):
    with METHOD(llava), torch.no_grad():
        cache = llava(**llava_inputs(llava, [4]))[CACHE]
        llava(input_ids=torch.tensor([[7]]), **{CACHE: cache})
        cache.crop(-1)
        with pytest.raises(RequestError, match="cropped"):
            llava(input_ids=torch.tensor([[8]]), **{CACHE: cache})


def test_several_tokens_on_a_filled_cache_are_refused_outside_generate(llava):
    inputs = llava_inputs(llava, [4])
    with METHOD(llava), torch.no_grad():
        out = llava(**inputs, use_cache=True)
        with pytest.raises(RequestError, match="whole prompt in one"):
            llava(input_ids=torch.tensor([[7, 8]]), **{CACHE: out[CACHE]})


@pytest.mark.parametrize("implementation", ["quantized", "offloaded"])
def test_caches_that_cannot_be_smoothed_are_refused(llava, implementation):
    cache = DynamicCache(config=llava.config.text_config, offloading=False)
    if implementation == "offloaded":
        cache.offloading = True
    else:
        cache.__class__ = QuantizedCache
        cache.layers = [type("QuantizedLayer", (), {})()]
    with METHOD(llava), torch.no_grad(), pytest.raises(RequestError, match="cannot smooth the cache"):
        llava(**llava_inputs(llava, [4]), **{CACHE: cache})


def test_chunked_prefill_gives_the_same_tokens():
    llava = small_llava(4)
    model = LlamaForCausalLM(llava.config.text_config).to(torch.float64).eval()
    model.model.load_state_dict(llava.get_decoder().state_dict())
    prompt = torch.randint(6, 60, (1, 13), generator=torch.Generator().manual_seed(0))
    for method in (METHOD, method_of(CASES[6])):
        with method(model), torch.no_grad():
            whole = model.generate(prompt, max_new_tokens=STEPS, do_sample=False, eos_token_id=None)
            chunks = model.generate(
                prompt, max_new_tokens=STEPS, do_sample=False, eos_token_id=None, prefill_chunk_size=4
            )
        assert torch.equal(whole, chunks)


def test_a_follow_up_turn_keeps_the_old_cache_and_starts_an_empty_queue(llava):
    inputs = llava_inputs(llava, [4])
    with METHOD(llava):
        first = generate(llava, inputs, max_new_tokens=8)
        ids = torch.cat([first.sequences, torch.tensor([[20, 21, 22]])], dim=1)
        follow_up = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        before = first[CACHE].layers[1].keys.clone()
        result = generate(llava, follow_up, **{CACHE: first[CACHE]}, max_new_tokens=8)
    kept = before.shape[2]
    keys = result[CACHE].layers[1].keys
    assert torch.equal(keys[:, :, :kept], before)
    # The new turn's prompt is as the model computes it on the smoothed cache of the first turn, untouched.
    with METHOD(llava):
        first = generate(llava, inputs, max_new_tokens=8)
    with torch.no_grad():
        llava(input_ids=ids[:, kept:], **{CACHE: first[CACHE]})
    torch.testing.assert_close(first[CACHE].layers[1].keys, keys[:, :, : ids.shape[1]], rtol=0, atol=1e-9)


def test_the_cache_of_a_pass_that_failed_is_free_at_once(llava):
    """Who runs out of memory gives back what is cached, and tries again with less."""
    passes = []

    def fail(layer, arguments, keywords):
        passes.append(weakref.ref(keywords[CACHE]))
        if len(passes) == 3:
            raise RuntimeError("out of memory")

    def write():
        with pytest.raises(RuntimeError, match="out of memory"):
            generate(llava, llava_inputs(llava, [4]))

    hook = llava.get_decoder().layers[1].register_forward_pre_hook(fail, with_kwargs=True)
    gc.disable()
    try:
        with METHOD(llava):
            write()
            assert passes[-1]() is None
    finally:
        gc.enable()
        hook.remove()


def test_two_caches_never_mix(llava):
    """As classifier-free guidance runs them: two streams decoded in turn, each with a queue of its own."""
    one, two = llava_inputs(llava, [4], seed=1), llava_inputs(llava, [6], seed=2)
    with METHOD(llava), torch.no_grad():
        expected = [replay(llava, inputs, [9, 10, 11, 12]) for inputs in (one, two)]
        streams = [[llava(**inputs, use_cache=True), inputs["attention_mask"]] for inputs in (one, two)]
        for token in [9, 10, 11, 12]:
            for stream in streams:
                stream[1] = torch.cat([stream[1], stream[1].new_ones(1, 1)], dim=1)
                stream[0] = llava(
                    input_ids=torch.tensor([[token]]),
                    attention_mask=stream[1],
                    position_ids=stream[1].sum(1, keepdim=True) - 1,
                    **{CACHE: stream[0][CACHE]},
                )
    for stream, keys in zip(streams, expected, strict=True):
        assert torch.equal(stream[0][CACHE].layers[2].keys, keys)


def test_a_copy_of_a_cache_takes_a_copy_of_the_state(llava):
    inputs = llava_inputs(llava, [4])
    with METHOD(llava), torch.no_grad():
        first = generate(llava, inputs, max_new_tokens=6)
        copied = copy.deepcopy(first[CACHE])
        copied.reorder_cache(torch.tensor([0]))
        assert copied.kvtune_state is not first[CACHE].kvtune_state
        assert copied.kvtune_session is first[CACHE].kvtune_session


def test_end_of_text_stops_a_row_as_without_the_method(llava):
    inputs = llava_inputs(llava, [4, 6, 2], seed=11)
    with METHOD(llava):
        free = generate(llava, inputs).sequences
        start = inputs["input_ids"].shape[1]
        stop = free[0, start + 5].item()
        stopped = generate(llava, inputs, eos_token_id=stop, pad_token_id=0).sequences
    for row in range(3):
        tokens = free[row, start:].tolist()
        end = tokens.index(stop) + 1 if stop in tokens else len(tokens)
        assert stopped[row, start : start + end].tolist() == tokens[:end]


@settings(max_examples=15, deadline=None)
@given(
    lambda_ref=st.floats(0, 1),
    clip_width=st.floats(0, 1),
    queue_length=st.integers(1, 40),
    start=st.integers(0, 2),
    extra=st.integers(1, 3),
    adaptive=st.booleans(),
    target=st.sampled_from(["kv", "k", "attention_output"]),
    seed=st.integers(0, 3),
)
def test_any_parameters_equal_the_naive_reference(
    lambda_ref, clip_width, queue_length, start, extra, adaptive, target, seed
):
    model = small_llava(seed, kv_heads=2)
    method = KVSmooth(lambda_ref, queue_length, clip_width, start, min(start + extra, 3), adaptive, target)
    inputs = llava_inputs(model, [3], seed=seed)
    expected = naive_decode(model, inputs, method.parameters(), 12)
    with method(model):
        result = generate(model, inputs, max_new_tokens=12)
    assert result.sequences[0, inputs["input_ids"].shape[1] :].tolist() == expected.tokens
