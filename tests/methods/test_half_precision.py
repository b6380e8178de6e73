"""Half precision with the numbers that trained models have, beside the same numbers in float64.

Keys have channels of 30, and in every second head one of 200 in all tokens alike, as a bias of Qwen2.5's keys leaves
it; scores go to 80, the first token is a sink of one head, and another looks everywhere.
"""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from method_matrix import LAYERS, METHODS, method_of
from transformers import DynamicCache

from kvtune.captioning import paged_attention
from kvtune.captioning.attention import Cached
from kvtune.captioning.attention import attend as attend_side_by_side
from kvtune.captioning.paged_attention import LANES, Layout
from kvtune.captioning.pages import PAGE, pages_for
from kvtune.methods.acting import Acting
from kvtune.methods.clvs import Unified, UnifiedKeys
from kvtune.methods.decoder import Decoder
from kvtune.methods.facts import PromptFacts
from kvtune.methods.lerp import lerp_
from kvtune.methods.row_attention import BatchMethods, Step
from kvtune.methods.row_state import first_acting
from kvtune.methods.seen import SeenPositions
from kvtune.methods.var import SinkSizes
from kvtune.models.places import grid_places

ROWS, HEADS, KV_HEADS, HEAD_DIM, WIDTH, VOCABULARY = 2, 4, 2, 128, 64, 50
BEFORE, SIDE, AFTER, STEPS = 7, 24, 30, 4
PROMPT = BEFORE + SIDE**2 + AFTER
SCALING = HEAD_DIM**-0.5
HALF = (torch.float16, torch.bfloat16)

CASES = {"plain": None, **{case: method_of(case) for case in METHODS}}

cases = pytest.mark.parametrize("case", CASES)
half_types = pytest.mark.parametrize("dtype", HALF, ids=["float16", "bfloat16"])


def numbers(seed, *shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class Situation:
    """Queries, keys and values of a prompt and of some steps, rounded to ``dtype`` and held in ``wide``."""

    def __init__(self, dtype, wide):
        def rounded(tensor):
            return tensor.to(dtype).to(wide)

        channels = numbers(1, HEAD_DIM)
        outlier = (numbers(2, HEAD_DIM).abs() > 1.8).double()
        tokens = PROMPT + STEPS
        keys = numbers(3, LAYERS, ROWS, KV_HEADS, tokens, HEAD_DIM) * (1 + 20 * outlier) + 10 * outlier * channels
        keys[:, 1, 0, 0, 5] += 80  # the sink
        keys[:, :, 1, :, 5] += 200
        values = numbers(4, LAYERS, ROWS, KV_HEADS, tokens, HEAD_DIM) * 3 + 1
        values[..., 0, :] *= 0.01
        queries = numbers(5, LAYERS, ROWS, HEADS, tokens, HEAD_DIM) + outlier * channels
        queries[..., 5] = 3 + 0.1 * queries[..., 5]
        queries[:, :, 3] *= 0.01  # a head that looks everywhere
        self.queries, self.keys, self.values = map(rounded, (queries, keys, values))
        self.hidden = rounded(30 * numbers(6, STEPS, LAYERS, ROWS, WIDTH))
        self.head = torch.nn.Linear(WIDTH, VOCABULARY, bias=False).to(wide)
        self.head.weight.data = rounded(0.2 * numbers(7, VOCABULARY, WIDTH))
        visual = torch.zeros(PROMPT, dtype=torch.bool)
        visual[BEFORE : BEFORE + SIDE**2] = True
        sizes = numbers(8, LAYERS, PROMPT).abs()
        unified = Unified(rounded(numbers(9, KV_HEADS, PROMPT, HEAD_DIM) * (1 + 20 * outlier)), torch.tensor(575))
        noted = {UnifiedKeys(): unified}
        noted |= {SinkSizes(dims): sizes for dims in ((3, 17, 20), "auto")}
        outputs = rounded(numbers(10, LAYERS, HEADS, HEAD_DIM))
        self.facts = PromptFacts(visual, grid_places(SIDE, SIDE), outputs, noted)
        rotary = SimpleNamespace(inv_freq=10000.0 ** (-torch.arange(0, HEAD_DIM, 2) / HEAD_DIM))
        config = SimpleNamespace(
            num_attention_heads=HEADS, num_key_value_heads=KV_HEADS, head_dim=HEAD_DIM, hidden_size=WIDTH
        )
        module = SimpleNamespace(rotary_emb=rotary, config=config, dtype=wide)
        self.decoder = Decoder(LAYERS, HEADS, module, self.head, True)


def by_generate(step, layer, query, keys, values, hide=lambda seen, query: seen):
    """``hide`` makes the mask of what is seen, [rows, 1, 1, positions]."""
    seen = torch.ones(ROWS, 1, 1, keys.shape[2], dtype=torch.bool)
    output, _ = step.attend(layer, query, keys, values, hide(seen, query), SCALING)
    return output[:, 0]


def acting_on(step, layer, positions):
    """What acts in a layer, for those who have no step of the decoder's own."""
    classes = torch.nn.functional.pad(step.methods.classes, (0, positions - PROMPT))
    rows = torch.arange(ROWS)
    seen = step.__dict__.setdefault("seen", SeenPositions(rows, classes, 0 * rows + PROMPT, 0 * rows + step.to_come))
    acting = [Acting(states, seen) for states, _ in step.methods.on_attention(np.arange(ROWS))]
    return [one for one in acting if one.changes(layer)]


def ended(step, layer, output, entropy):
    """Of a step that has seen the attention of a layer."""
    vars(step).setdefault("found", {})[layer] = entropy
    for state in step.states:
        if state.changes_output and layer in state.layers:
            output = state.change_output(layer, output, entropy, step.generated)
    return output


def by_grid(step, layer, query, keys, values):
    parts = slice(PROMPT), slice(PROMPT, None)
    prefix, suffix = (Cached(keys[:, :, part], values[:, :, part], None) for part in parts)
    grouped = query.view(ROWS, KV_HEADS, -1, HEAD_DIM)
    acting = acting_on(step, layer, PROMPT)
    output, entropy = attend_side_by_side(grouped, prefix, suffix, SCALING, True, layer, acting)
    return ended(step, layer, output.reshape(ROWS, HEADS, HEAD_DIM), entropy)


def by_pages(step, layer, query, keys, values, attend_tiles=paged_attention.attend_tiles):
    text = keys.shape[2] - PROMPT
    of_prompts, of_texts = pages_for(PROMPT), pages_for(text)

    def paged(cache):
        parts = (cache[:, :, :PROMPT], of_prompts), (cache[:, :, PROMPT:], of_texts)
        full = [torch.nn.functional.pad(part, (0, 0, 0, pages * PAGE - part.shape[2])) for part, pages in parts]
        pages = torch.cat([part.unflatten(2, (-1, PAGE)).transpose(1, 2).flatten(0, 1) for part in full])
        return torch.cat([pages[:1] * 0, pages])

    def whole(tensor):
        return tensor.to(torch.int32)

    table = 1 + torch.arange(ROWS * (of_prompts + of_texts))
    tiles = torch.full((ROWS, LANES), -1)
    tiles[:, 0] = torch.arange(ROWS)
    layout = Layout(
        newest=whole(torch.full((ROWS,), text - 1)),
        table=whole(table[ROWS * of_prompts :].view(ROWS, -1)),
        tiles=whole(tiles),
        tile_images=whole(torch.arange(ROWS)),
        tile_lengths=whole(torch.full((ROWS,), PROMPT)),
        lanes_of_rows=whole(LANES * torch.arange(ROWS)),
        prompt_table=whole(table[: ROWS * of_prompts].view(ROWS, -1)),
    )
    acting = acting_on(step, layer, of_prompts * PAGE)
    of_lanes = torch.tensor([0, LANES])
    acting = [Acting(one.states, one.seen, of_lanes) for one in acting]
    grouped = query.view(ROWS, KV_HEADS, -1, HEAD_DIM)
    output, entropy = attend_tiles(grouped, paged(keys), paged(values), layout, SCALING, layer, acting)
    return ended(step, layer, output[of_lanes].reshape(ROWS, HEADS, HEAD_DIM), entropy[of_lanes])


class Ended:
    """A step when all layers are through."""

    def __init__(self, step, cache):
        found = vars(step).get("found")
        self.generated, self.cache = step.generated, cache
        self.entropies = step.entropies if found is None else lambda layers: torch.stack([found[one] for one in layers])

    def draw(self, layers, on_keys, on_values):
        for layer, *factors in zip(layers, on_keys, on_values, strict=True):
            cached = self.cache.layers[layer]
            for states, factor in zip((cached.keys, cached.values), factors, strict=True):
                lerp_(states[:, :, -1], states[:, :, -2], factor[:, None, None])


def begun(situation, method):
    batch = BatchMethods(ROWS, situation.decoder, torch.device("cpu"))
    batch.set(range(ROWS), [method] * ROWS)
    batch.see(situation.facts.visual.expand(ROWS, -1))
    batch.begin(range(ROWS), [situation.facts] * ROWS)
    return batch


def decoded(situation, method, way):
    """Outputs of attention, [steps, layers, rows, heads, head_dim], and the cache at the end; the first step's token is
    the prompt's last."""
    batch = begun(situation, method)
    cache = DynamicCache()
    for layer in range(LAYERS):
        cache.update(*(one[layer, :, :, :PROMPT].clone() for one in (situation.keys, situation.values)), layer)
    outputs = []
    for number in range(STEPS):
        step = Step(batch, False, to_come=-1 if number else 0, positions=PROMPT + number + 1)
        for layer in range(LAYERS):
            at = PROMPT + number
            new = (one[layer, :, :, at : at + 1] for one in (situation.keys, situation.values))
            keys, values = cache.update(*new, layer)
            query = situation.queries[layer, :, :, at : at + 1]
            outputs.append(way(step, layer, query, keys, values))
            for state in step.states:
                if state.looks_at_layers:
                    state.after_layer(layer, situation.hidden[number, layer])
        for state in step.states:
            state.end_step(Ended(step, cache))
    cached = torch.stack([torch.stack([layer.keys, layer.values]) for layer in cache.layers])
    return torch.stack(outputs).view(STEPS, LAYERS, ROWS, HEADS, HEAD_DIM), cached


def of_prompt(situation, method, tokens=8):
    """Outputs of a prompt's last tokens, [layers, rows, tokens, heads, head_dim], 0 where no method acts."""
    first = {"after_image": 0, "last_prompt_token": tokens - 1}.get(first_acting(method), tokens)
    step = Step(begun(situation, method), True, first=np.full(ROWS, first), to_come=0, positions=PROMPT)
    outputs = []
    for layer in range(LAYERS):
        query = situation.queries[layer, :, :, PROMPT - tokens : PROMPT]
        keys, values = situation.keys[layer, :, :, :PROMPT], situation.values[layer, :, :, :PROMPT]
        nothing = torch.zeros_like(query).transpose(1, 2)
        outputs.append(step.attend_prompt(layer, query, keys, values, None, SCALING, nothing))
    return torch.stack(outputs)


def check(got, right, dtype):
    """Off by no more than a few roundings, in any head."""
    error = (got.double() - right).norm(dim=-1) / right.norm(dim=-1).clamp(min=1e-9)
    assert error.max() < 3 * torch.finfo(dtype).eps, error.max()


@half_types
@cases
def test_attention_is_that_of_float64(case, dtype):
    exact, half = Situation(dtype, torch.float64), Situation(dtype, dtype)
    right, right_cache = decoded(exact, CASES[case], by_generate)
    for way in (by_generate, by_grid, by_pages):
        got, cache = decoded(half, CASES[case], way)
        assert got.dtype == cache.dtype == dtype
        check(got, right, dtype)
        check(cache, right_cache, dtype)
    check(of_prompt(half, CASES[case]), of_prompt(exact, CASES[case]), dtype)


@half_types
@cases
def test_autocast_leaves_methods_their_numbers(case, dtype):
    """Around ``generate()`` of a model in float32, whose turned queries and keys stay so while its values do not."""
    right, _ = decoded(Situation(dtype, torch.float64), CASES[case], by_generate)
    mixed = Situation(dtype, torch.float32)
    mixed.values = mixed.values.to(dtype)
    with torch.autocast("cpu", dtype):
        got, _ = decoded(mixed, CASES[case], by_generate)
    check(got, right, dtype)


@pytest.mark.parametrize("least", ["of the type", "infinite"])
@cases
def test_what_a_mask_adds_hides_as_a_boolean_one(case, least):
    half = Situation(torch.float16, torch.float16)

    def padding(seen, query):
        return seen & (torch.arange(seen.shape[-1]) >= 4)

    def added(seen, query):
        hidden = -torch.inf if least == "infinite" else torch.finfo(query.dtype).min
        return query.new_zeros(seen.shape).masked_fill(~padding(seen, query), hidden)

    found, right = (decoded(half, CASES[case], partial(by_generate, hide=hide))[0] for hide in (added, padding))
    assert found.isfinite().all() and torch.equal(found, right)


@pytest.mark.parametrize("way", [by_generate, by_grid, by_pages])
def test_values_of_a_flat_row_may_sum_to_more_than_float16_holds(way):
    flat = Situation(torch.float16, torch.float16)
    flat.queries *= 0
    flat.values = flat.values * 0 + 150.0
    check(decoded(flat, None, way)[0], torch.full((1, HEAD_DIM), 150.0).double(), torch.float16)
