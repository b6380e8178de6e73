"""Every method and three stacks by the same checks, against naive references written apart."""

import functools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from method_matrix import (
    LAYERS,
    METHODS,
    MODELS,
    STEPS,
    generate,
    method_of,
    naive,
    naive_stack,
    tried,
    tried_llava,
)
from naive_methods import naive_caption
from small_models import llava_inputs, small_llava
from transformers import LlavaModel

from kvtune import KVSmooth
from kvtune.errors import RequestError
from kvtune.hf import CACHE
from kvtune.methods import ADHH, CLVS, PAI, SPARC, VAF, VAR, MiddleLayers, Stack, get_method, method_names
from kvtune.methods.attach import attach

cases = pytest.mark.parametrize("case", METHODS)


def check(tokens, logits, expected):
    """The same tokens, for the same reasons."""
    assert tokens == expected.tokens
    for ours, naively in zip(logits, expected.logits, strict=True):
        torch.testing.assert_close(ours.double(), naively, rtol=0, atol=1e-4)  # rotary angles are of float32


def test_every_method_is_in_the_matrix():
    here = {name for case in METHODS for name in case.split()[0].split("+")}
    assert here == set(method_names())


@pytest.mark.parametrize("name", MODELS)
@cases
def test_equals_the_naive_reference(case, name):
    """Two prompts of different length, the shorter one padded, are each as alone without padding."""
    of = tried(name)
    with method_of(case)(of.model):
        tokens, output = generate(of.model, of.batch)
    for row, own in enumerate(tokens):
        check(own, [logits[row] for logits in output.logits], naive(name, row, case))


@functools.cache
def tried_in_float16():
    of = tried_llava(2)
    of.model.half()
    for inputs in (of.batch, *of.alone):
        inputs["pixel_values"] = inputs["pixel_values"].half()
    return of


@cases
def test_padding_is_not_seen_in_float16(case):
    """Whose least number is no score that vanishes whatever is done to it; seen, padding moves logits by 4 or more."""
    of = tried_in_float16()
    with method_of(case)(of.model):
        together, alone = (generate(of.model, inputs, max_new_tokens=1)[1] for inputs in (of.batch, of.alone[1]))
    torch.testing.assert_close(together.logits[0][1], alone.logits[0][0], rtol=0, atol=0.1)


@pytest.mark.parametrize("name", MODELS)
@cases
def test_does_something(case, name):
    """Or the equality would show little."""
    changed, plain = naive(name, 0, case), naive(name, 0, None)
    same = next((n for n in range(STEPS) if changed.tokens[n] != plain.tokens[n]), STEPS - 1)
    moved = [float((changed.logits[n] - plain.logits[n]).abs().max()) for n in range(same + 1)]
    assert max(moved) > 0.01


@pytest.mark.parametrize("name", MODELS)
def test_each_row_may_have_a_method_of_its_own(name):
    of = tried(name)
    mixed = [None, *METHODS]
    for row, inputs in enumerate(of.alone):
        batch = {key: torch.cat([value] * len(mixed)) for key, value in inputs.items()}
        with attach(of.model, [method_of(case) if case else None for case in mixed]):
            tokens, output = generate(of.model, batch)
        for place, case in enumerate(mixed):
            check(tokens[place], [logits[place] for logits in output.logits], naive(name, row, case))


NEUTRAL = {
    "pai": PAI(0.0, 0, LAYERS),
    "middle_layers": MiddleLayers(0.0, 0, LAYERS),
    "vaf": VAF(1.0, 1.0, 0, LAYERS),
    "sparc, gain": SPARC(1.0, 0.5, 0.0, 1),
    "sparc, never selected": SPARC(2.0, 0.5, 1e9, 1),
    "ad_hh": ADHH(((0, 1), (2, 3)), 1.0),
    "var, nothing freed": VAR(0.5, 1.0, 1.0, (3, 17)),
    "var, no sinks": VAR(100.0, 1.0, 0.0, (3, 17)),
    "stack": Stack.of(
        PAI(0.0, 0, LAYERS), SPARC(1.0, 0.5, 0.0, 1), KVSmooth(0.0, clip_width=0.0, start_layer=0, end_layer=LAYERS)
    ),
}
"""CLVS and DSCR have none: one moves the image's positions in layer 0, and in one a token's own score never counts."""


@pytest.mark.parametrize("kind", NEUTRAL)
def test_neutral_parameters_give_the_plain_tokens(kind):
    of = tried("grouped heads")
    with NEUTRAL[kind](of.model):
        tokens, output = generate(of.model, of.batch)
    for row, own in enumerate(tokens):
        check(own, [logits[row] for logits in output.logits], naive("grouped heads", row, None))


def test_clvs_with_all_of_a_heads_own_weights_has_no_memory():
    """Neither what is remembered nor when it ends makes a difference."""
    of = tried("grouped heads")
    written = []
    for beta, threshold in ((0.0, 1.0), (0.9, 0.0)):
        with CLVS(1.0, beta, threshold)(of.model):
            written.append(generate(of.model, of.batch)[0])
    assert written[0] == written[1]


def test_clvs_without_positions_is_as_with_those_that_the_decoder_counts():
    model = small_llava(0, kv_heads=2)
    inputs = llava_inputs(model, [4])
    positions = torch.arange(inputs["input_ids"].shape[1])[None]
    with CLVS(0.5, 0.6, 0.9)(model), torch.no_grad():
        with_them, without = (model(**inputs, **more).logits[:, -1] for more in ({"position_ids": positions}, {}))
    assert torch.equal(with_them, without)
    with torch.no_grad():
        assert not torch.allclose(model(**inputs).logits[:, -1], without)


def test_var_leaves_a_head_whose_visual_tokens_are_all_sinks():
    """What sinks lose would have nobody to go to."""
    of = tried("grouped heads")
    with VAR(0.0, 1.0, 0.5, (3, 17))(of.model):
        tokens, output = generate(of.model, of.batch)
    for row, own in enumerate(tokens):
        check(own, [logits[row] for logits in output.logits], naive("grouped heads", row, None))


def what_an_attachment_touches(model):
    modules = list(model.modules())
    hooks = [
        (len(module._forward_hooks), len(module._forward_pre_hooks), len(module._forward_hooks_with_kwargs))
        for module in modules
    ]
    implementations = [module.config._attn_implementation for module in modules if hasattr(module, "config")]
    return hooks, implementations, [set(vars(module)) for module in modules]


@cases
def test_leaves_the_model_as_it_was(case):
    of = tried("grouped heads")
    plain = generate(of.model, of.batch)[0]  # transformers itself leaves hooks after a model's first
    before = what_an_attachment_touches(of.model)
    with method_of(case)(of.model):
        generate(of.model, of.batch, max_new_tokens=2)
    assert what_an_attachment_touches(of.model) == before
    with pytest.raises(RuntimeError, match="on purpose"), method_of(case)(of.model):
        failing = of.model.get_decoder().layers[-1].register_forward_pre_hook(fail)
        try:
            generate(of.model, of.batch, max_new_tokens=2)
        finally:
            failing.remove()
    assert what_an_attachment_touches(of.model) == before
    assert generate(of.model, of.batch)[0] == plain


def fail(*arguments):
    raise RuntimeError("on purpose")


BEAMS = 3


@cases
def test_beams_take_their_state_along(case):
    """What beam search says of its tokens is what the naive reference says of them, of which it knows nothing."""
    of, steps = tried("grouped heads"), 6
    with method_of(case)(of.model):
        _, output = generate(
            of.model, of.batch, num_beams=BEAMS, num_return_sequences=BEAMS, output_scores=True, max_new_tokens=steps
        )
    start = of.batch["input_ids"].shape[1]
    for number in (0, BEAMS - 1, BEAMS, 2 * BEAMS - 1):
        forced = output.sequences[number, start:].tolist()
        said = naive_caption(of.model, of.alone[number // BEAMS], naive_stack(method_of(case)), steps, forced)
        total = sum(float(logits.log_softmax(-1)[token]) for logits, token in zip(said.logits, forced, strict=True))
        assert abs(total - output.sequences_scores[number].item() * steps) < 2e-4  # summed in float32


@pytest.mark.slow
@cases
def test_one_beam_is_greedy(case):
    of = tried("grouped heads")
    with method_of(case)(of.model):
        tokens = generate(of.model, of.batch, num_beams=1)[0]
    assert tokens == [naive("grouped heads", row, case).tokens for row in (0, 1)]


@cases
def test_static_caches_give_the_same_tokens(case):
    of = tried("grouped heads")
    with method_of(case)(of.model):
        tokens = generate(of.model, of.batch, cache_implementation="static")[0]
    assert tokens == [naive("grouped heads", row, case).tokens for row in (0, 1)]


def test_a_mask_may_be_added_to_scores():
    """One of a user's own: 0 on what is seen, else the least number."""
    of = tried("grouped heads")
    mask = of.batch["attention_mask"]
    seen = torch.cat([mask, torch.ones(2, 1)], dim=1).bool()
    whole = seen[:, None, None] & torch.ones(seen.shape[1], seen.shape[1]).bool().tril()
    added = torch.zeros(whole.shape).double().masked_fill(~whole, torch.finfo(torch.float64).min)
    places = seen.cumsum(1) - 1

    def logits(mask_of_prompt, mask_of_step):
        with method_of("var+sparc")(of.model), torch.no_grad():
            prompt = {"attention_mask": mask_of_prompt, "position_ids": places[:, :-1].clamp(min=0)}
            out = of.model(**of.batch | prompt, use_cache=True)
            step = {"attention_mask": mask_of_step, "position_ids": places[:, -1:], CACHE: out[CACHE]}
            return of.model(input_ids=torch.tensor([[7], [9]]), **step).logits[:, -1]

    found = logits(added[:, :, :-1, :-1], added[:, :, -1:])
    torch.testing.assert_close(found, logits(mask, seen.long()), rtol=0, atol=1e-9)


def test_a_window_that_hides_a_part_of_the_prompt_is_refused_by_methods_that_look_at_all_of_it():
    model = small_llava(1, text="mistral", sliding_window=20)
    inputs = llava_inputs(model, [4], seed=7)
    with PAI(0.5, 0, 3)(model), pytest.raises(RequestError, match="of which a sliding window sees a part"):
        generate(model, inputs)


LOOKS_AT_THE_WHOLE_PROMPT = {"var", "clvs"}


@functools.cache
def parts_are_as_the_whole(size):
    """Whether transformers, without a method, writes for a prompt in parts what it writes for the whole."""
    of = tried("grouped heads")
    return generate(of.model, of.alone[0], prefill_chunk_size=size)[0] == generate(of.model, of.alone[0])[0]


@pytest.mark.parametrize("size", [4, 17, 20])
@cases
def test_a_prompt_that_comes_in_parts(case, size):
    """Of a prompt of 21 tokens with the image at 1 to 16, parts end before, at and after the image's end."""
    of = tried("grouped heads")
    with method_of(case)(of.model):
        if LOOKS_AT_THE_WHOLE_PROMPT & set(case.split()[0].split("+")):
            with pytest.raises(RequestError, match="without prefill_chunk_size"):
                generate(of.model, of.alone[0], prefill_chunk_size=size)
            return
        tokens = generate(of.model, of.alone[0], prefill_chunk_size=size)[0]
    if not parts_are_as_the_whole(size):
        pytest.skip("this version of transformers itself writes another text for a prompt in parts")
    assert tokens == [naive("grouped heads", 0, case).tokens]


start_layers = st.integers(0, LAYERS - 1)
shares = st.floats(0, 1)


@st.composite
def any_method(draw):
    """One of them, within the ranges that it takes."""
    start = draw(start_layers)
    span = {"start_layer": start, "end_layer": draw(st.integers(start + 1, LAYERS))}
    gain = st.floats(0, 2)
    head = st.tuples(start_layers, st.integers(0, 3))
    own = {
        "pai": lambda: {"alpha": draw(gain), **span},
        "middle_layers": lambda: {"alpha": draw(gain), **span},
        "vaf": lambda: {"visual_gain": draw(gain), "system_gain": draw(gain), **span},
        "sparc": lambda: {
            "alpha": draw(gain), "beta": draw(shares), "tau": draw(st.floats(-0.5, 2)), "layer": draw(start_layers),
        },
        "ad_hh": lambda: {"heads": draw(st.lists(head, min_size=1, max_size=8)), "threshold": draw(shares)},
        "var": lambda: {
            "tau": draw(st.floats(0, 4)), "rho": draw(shares), "p": draw(shares),
            "sink_dims": draw(st.just("auto") | st.lists(st.integers(0, 31), min_size=1, max_size=3)),
        },
        "clvs": lambda: {"alpha": draw(shares), "beta": draw(shares), "threshold": draw(shares)},
        "dscr": lambda: {
            "sigma_s": draw(st.floats(0.05, 1)), "beta": draw(gain), "target": draw(st.sampled_from(("k", "kv"))),
            **span,
        },
    }  # fmt: skip
    name = draw(st.sampled_from(sorted(own)))
    return get_method(name).from_parameters(own[name]())


@settings(max_examples=15, deadline=None, derandomize=True)
@given(method=any_method())
def test_any_parameters_equal_the_naive_reference(method):
    of = tried("grouped heads")
    expected = naive_caption(of.model, of.alone[1], naive_stack(method), 6)
    with method(of.model):
        tokens, output = generate(of.model, of.alone[1], max_new_tokens=6)
    check(tokens[0], [logits[0] for logits in output.logits], expected)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (ADHH(((LAYERS, 0),)), "heads .*model has 5 layers"),
        (ADHH(((0, 4),)), "heads .*4 heads"),
        (VAR(sink_dims=(3, 32)), "sink_dims has 32, but the model's hidden state has 32"),
        (PAI(0.5, 2, 6), "end_layer can be at most 5"),
        (MiddleLayers(0.5, 2, 6), "end_layer can be at most 5"),
        (VAF(1.1, 0.9, 2, 6), "end_layer can be at most 5"),
        (SPARC(layer=5), "layer can be at most 4"),
        (Stack.of(SPARC(layer=1), PAI(0.5, 2, 6)), "end_layer can be at most 5"),
    ],
)
def test_what_reaches_beyond_the_model_is_refused(method, message):
    model = tried("grouped heads").model
    before = what_an_attachment_touches(model)
    with pytest.raises(RequestError, match=message) as refused, method(model):
        pass
    assert "\n" not in str(refused.value) and what_an_attachment_touches(model) == before


def test_clvs_is_refused_without_a_projection_to_the_vocabulary():
    model = LlavaModel(tried("grouped heads").model.config)
    with pytest.raises(RequestError, match="projection to the vocabulary, which the model does not have"):
        CLVS()(model).__enter__()


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("pai+pai", {}, "pai twice"),
        ("pai+vaf+pai", {}, "pai twice"),
        ("pai+", {}, "unknown method ''"),
        ("pia", {}, "unknown method 'pia', did you mean 'pai'[?] there is ad_hh"),
        ("pai", {"visual_gain": 1.2}, "pai: unknown parameter 'visual_gain'; there is alpha, start_layer, end_layer"),
        (
            "pai+vaf",
            {"start_layer": 1},
            "pai[+]vaf: unknown parameter 'start_layer', did you mean '(pai|vaf)",
        ),
        ("ad_hh", {}, "ad_hh needs the parameter 'heads'"),
        ("ad_hh", {"heads": []}, "heads must be a list"),
        ("ad_hh", {"heads": [[1]]}, "heads must be pairs"),
        ("ad_hh", {"heads": [[1, -1]]}, "heads must be pairs"),
        ("var", {"sink_dims": []}, "sink_dims must be auto or a list"),
        ("var", {"sink_dims": "both"}, "sink_dims must be auto or a list"),
        ("var", {"p": 1.5}, "p must be a number from 0 to 1"),
        ("clvs", {"alpha": float("nan")}, "alpha must be a number from 0 to 1"),
        ("sparc", {"layer": 1.5}, "layer must be a whole number"),
        ("vaf", {"start_layer": 3, "end_layer": 3}, "end_layer must be greater"),
    ],
)
def test_wrong_parameters_are_refused(name, parameters, message):
    with pytest.raises(RequestError, match=message) as refused:
        get_method(name).from_parameters(parameters)
    assert "\n" not in str(refused.value)


SHARES = {
    "kvsmooth": ("lambda_ref", "clip_width"),
    "sparc": ("beta",),
    "ad_hh": ("threshold",),
    "var": ("rho", "p"),
    "clvs": ("alpha", "beta", "threshold"),
}


@pytest.mark.parametrize(("name", "share"), [(name, share) for name, shares in SHARES.items() for share in shares])
def test_shares_are_from_0_to_1(name, share):
    others = {"kvsmooth": {"lambda_ref": 0.5}, "ad_hh": {"heads": [[0, 0]]}}.get(name, {})
    for value in (0, 1):
        get_method(name).from_parameters(others | {share: value})
    for value in (-0.01, 1.01):
        with pytest.raises(RequestError, match=f"{share} must be a number from 0 to 1"):
            get_method(name).from_parameters(others | {share: value})


@cases
def test_a_prompt_without_an_image_is_refused(case):
    of = tried("grouped heads")
    ids = torch.tensor([[1, 20, 21, 22]])
    with method_of(case)(of.model), pytest.raises(RequestError, match="visual tokens, but a prompt has none"):
        generate(of.model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})


@cases
def test_a_prompt_of_embeddings_alone_is_refused(case):
    of = tried("grouped heads")
    embedded = of.model.get_input_embeddings()(torch.tensor([[1, 20, 21, 22]]))
    with method_of(case)(of.model), pytest.raises(RequestError, match="call the model with input_ids"):
        of.model.generate(inputs_embeds=embedded, max_new_tokens=2)


def test_batches_of_any_size_one_after_the_other_under_a_method_that_looks_at_layers():
    """What a method remembers of one prompt sees nothing of the next, not even its size."""
    model = small_llava(0, layers=5, kv_heads=2)
    batches = [llava_inputs(model, lengths, seed=3) for lengths in ([4], [4, 2, 6], [4])]
    method = CLVS(0.5, 0.6, 0.9)

    def tokens(inputs):
        return model.generate(**inputs, max_new_tokens=6, do_sample=False, eos_token_id=None).tolist()

    expected = []
    for inputs in batches:
        with method(model), torch.no_grad():
            expected.append(tokens(inputs))
    with method(model), torch.no_grad():
        assert [tokens(inputs) for inputs in batches] == expected
