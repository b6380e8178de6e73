"""What decoders are given: taken apart by prompt and put together, refused by name where it is not known."""

import dataclasses

import pytest
import torch
from family_runs import STEPS, generate, pictures
from visual_places import check_places

from kvtune.captioning import Captioner, CaptionRequest
from kvtune.errors import RequestError
from kvtune.hf import recorded_decoder
from kvtune.models.decoder_inputs import Prompt, VisualTokens, put_together, taken_apart
from kvtune.models.places import grid_places

GRID = [[0.25, 0.125], [0.75, 0.125], [0.25, 0.375], [0.75, 0.375], [0.25, 0.625], [0.75, 0.625], [0.25, 0.875],
        [0.75, 0.875]]  # fmt: skip


def prompt(length, visual=(1, 3), attention=None, deepstack=None, seed=0):
    generator = torch.Generator().manual_seed(seed + length)
    mask = torch.zeros(length, dtype=torch.bool)
    mask[slice(*visual)] = True
    embeddings = torch.randn(length, 4, generator=generator)
    return Prompt(embeddings, torch.arange(length), length, VisualTokens(mask, None), (), deepstack, attention or {})


def test_recording_leaves_the_model_as_it_was(loaded):
    vlm = loaded("qwen3-vl")
    inputs = vlm.prepare(pictures()[:1])
    before = generate(vlm, inputs)
    with recorded_decoder(vlm.hf_model) as calls:
        generate(vlm, inputs)
    assert len(calls) == STEPS and "forward" not in vars(vlm.decoder)
    assert generate(vlm, inputs) == before
    with pytest.raises(ZeroDivisionError), recorded_decoder(vlm.hf_model):
        raise ZeroDivisionError
    assert "forward" not in vars(vlm.decoder)


def test_deepstack_features_are_kept_and_matter(loaded, monkeypatch):
    vlm = loaded("qwen3-vl")
    inputs = vlm.prepare(pictures())
    prompts = vlm.family.decoder_inputs(vlm, pictures())
    assert [one.deepstack.shape for one in prompts] == [(2, int(one.visual.mask.sum()), 32) for one in prompts]
    with recorded_decoder(vlm.hf_model) as calls:
        generate(vlm, inputs, max_new_tokens=1)
    together = put_together(prompts)
    assert torch.equal(together["visual_pos_masks"], calls[0]["visual_pos_masks"])
    for ours, given in zip(together["deepstack_visual_embeds"], calls[0]["deepstack_visual_embeds"], strict=True):
        assert torch.equal(ours, given)

    def captions():
        requests = [CaptionRequest(n, picture) for n, picture in enumerate(pictures())]
        found = Captioner(vlm, max_new_tokens=STEPS).run(requests)
        return [one.token_ids for one in sorted(found, key=lambda one: one.image_id)]

    assert captions() == [
        tuple(token for token in generate(vlm, vlm.prepare([one]), eos_token_id=vlm.eos_token_ids)[0]
              if token not in vlm.eos_token_ids)
        for one in pictures()
    ]  # fmt: skip
    whole = captions()
    original = type(vlm.family).decoder_inputs
    monkeypatch.setattr(
        type(vlm.family),
        "decoder_inputs",
        lambda *arguments: [dataclasses.replace(one, deepstack=None) for one in original(*arguments)],
    )
    assert captions() != whole


def test_rows_of_one_batch_are_the_prompts_of_each_alone(loaded):
    for name in ("qwen3-vl", "llava-next", "instructblip"):
        vlm = loaded(name)
        together = vlm.family.decoder_inputs(vlm, pictures())
        for one, picture in zip(together, pictures(), strict=True):
            (alone,) = vlm.family.decoder_inputs(vlm, [picture])
            assert one.length == alone.length and one.next_position == alone.next_position
            for ours, its in zip(one.tensors, alone.tensors, strict=True):
                torch.testing.assert_close(ours, its, rtol=0, atol=1e-9, equal_nan=True)


@pytest.mark.parametrize("where", [0, 1])
def test_an_argument_that_is_not_known_is_refused_by_name(where):
    given = [{"inputs_embeds": torch.zeros(1, 3, 4), "use_cache": True}, {"inputs_embeds": torch.zeros(1, 1, 4)}]
    visual = [VisualTokens(torch.tensor([False, True, False]), None)]
    (one,) = taken_apart(*given, torch.zeros(1, 3).long(), torch.ones(1, 3).long(), visual, "some-model")
    assert one.positions.tolist() == [0, 1, 2] and one.next_position == 3
    given[where]["per_layer_inputs"] = torch.zeros(1)
    with pytest.raises(RequestError, match="some-model is not supported: it hands its text decoder per_layer_inputs"):
        taken_apart(*given, torch.zeros(1, 3).long(), torch.ones(1, 3).long(), visual, "some-model")


def test_positions_that_differ_between_axes_after_the_prompt_are_refused():
    ids_and_mask = torch.zeros(1, 3).long(), torch.ones(1, 3).long()
    all_visual = [VisualTokens(torch.ones(3).bool(), None)]
    given = [{"inputs_embeds": torch.zeros(1, 3, 4)}, {"inputs_embeds": torch.zeros(1, 1, 4)}]
    given[0]["position_ids"] = torch.arange(3).expand(3, 1, 3)
    given[1]["position_ids"] = torch.tensor([3, 4, 4])[:, None, None]
    with pytest.raises(RequestError, match="differ between its axes"):
        taken_apart(*given, *ids_and_mask, all_visual, "some-model")
    # The first of four axes counts the text, and is none of the rotary embedding's.
    given[1]["position_ids"] = torch.tensor([9, 4, 4, 4])[:, None, None]
    (one,) = taken_apart(*given, *ids_and_mask, all_visual, "some-model")
    assert one.next_position == 4


def test_who_sees_whom_goes_with_the_prompt():
    seen = torch.ones(2, 1, 4, 4, dtype=torch.bool).tril()
    seen[:, :, 1:3, 1:3] = True
    seen[1, :, :, 0] = False
    given = {
        "inputs_embeds": torch.randn(2, 4, 8),
        "attention_mask": {"full_attention": seen, "sliding_attention": None},
    }
    mask = torch.tensor([[1, 1, 1, 1], [0, 1, 1, 1]])
    visual = [VisualTokens(row.bool()[row.bool()], None) for row in mask]
    prompts = taken_apart(given, {"inputs_embeds": torch.zeros(2, 1, 8)}, mask, mask, visual, "some-model")
    assert [one.attention["full_attention"].shape[0] for one in prompts] == [4, 3]
    together = put_together(prompts)["attention_mask"]
    assert list(together) == ["full_attention"]
    expected = seen.clone()
    expected[1, 0, 0, 0] = True  # padding sees itself, so that nothing becomes NaN
    assert torch.equal(together["full_attention"], expected)
    additive = {**given, "attention_mask": torch.where(seen, 0.0, torch.finfo(torch.float32).min)}
    prompts = taken_apart(additive, {"inputs_embeds": torch.zeros(2, 1, 8)}, mask, mask, visual, "some-model")
    assert torch.equal(put_together(prompts)["attention_mask"], expected)


def test_text_that_sees_the_next_token_is_not_causal_after_the_image():
    mask, visual = torch.ones(1, 4).long(), [VisualTokens(torch.tensor([True, True, False, False]), None)]
    seen = torch.ones(1, 1, 4, 4, dtype=torch.bool).tril()
    seen[:, :, 0, 1] = True
    for ahead in (False, True):
        seen[:, :, 2, 3] = ahead
        given = {"inputs_embeds": torch.zeros(1, 4, 8), "attention_mask": seen}
        (one,) = taken_apart(given, {"inputs_embeds": torch.zeros(1, 1, 8)}, mask, mask, visual, "some-model")
        assert one.is_causal_after_image != ahead


@pytest.mark.parametrize(("seen", "features"), [(2, 1), (1, 2), (2, 2)])
def test_features_of_tokens_that_are_not_the_images_are_refused(seen, features):
    mask, visual = torch.ones(1, 3).long(), [VisualTokens(torch.tensor([True, False, False]), None)]
    given = {
        "inputs_embeds": torch.zeros(1, 3, 8),
        "visual_pos_masks": torch.arange(3)[None] < seen,
        "deepstack_visual_embeds": [torch.zeros(features, 8)],
    }
    with pytest.raises(RequestError, match="adds features to tokens that are not the image's"):
        taken_apart(given, {"inputs_embeds": torch.zeros(1, 1, 8)}, mask, mask, visual, "some-model")


def test_a_prompt_without_a_mask_of_its_own_is_causal_beside_one_with():
    own = torch.ones(4, 4, dtype=torch.bool)
    together = put_together([prompt(4, attention={"": own}), prompt(3)])["attention_mask"]
    assert torch.equal(together[0, 0], own)
    assert together[1, 0].tolist() == [[i == j == 0 or 1 <= j <= i for j in range(4)] for i in range(4)]


def test_visual_tokens_say_what_stands_before_and_after_the_image():
    visual = prompt(9, visual=(2, 6)).visual
    assert (visual.first, visual.end) == (2, 6)
    assert (VisualTokens(torch.zeros(3).bool(), None).first, VisualTokens(torch.zeros(3).bool(), None).end) == (0, 0)
    with pytest.raises(RequestError, match="3 places were given for 4 visual tokens"):
        VisualTokens(visual.mask, torch.zeros(3, 2))


def test_a_grid_is_read_row_by_row():
    assert grid_places(4, 2).tolist() == GRID


HAVE_PLACES = ["llava-1.5", "llava-next", "qwen2.5-vl", "qwen3-vl"]


@pytest.mark.parametrize("size", [(64, 64), (100, 50), (45, 120)], ids=str)
@pytest.mark.parametrize("name", HAVE_PLACES)
def test_a_token_is_where_a_change_of_the_picture_changes_it(loaded, name, size):
    check_places(loaded(name), size)


def test_q_former_tokens_have_no_places(loaded):
    for name in ("instructblip", "minigpt4"):
        vlm = loaded(name)
        (one,) = vlm.family.decoder_inputs(vlm, pictures()[:1])
        assert one.visual.places is None and int(one.visual.mask.sum()) == 4


def test_line_ends_of_llava_next_have_no_place(loaded):
    vlm = loaded("llava-next")
    for one in pictures():
        (found,) = vlm.family.decoder_inputs(vlm, [one])
        ends = (found.embeddings[found.visual.mask] == vlm.hf_model.model.image_newline).all(1)
        assert torch.equal(found.visual.places.isnan().any(1), ends) and ends.any(), one.size
