"""What every family must do, each on a small random checkpoint of its true architecture, loaded by path."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from checkpoints import LAYERS, SAVERS
from family_runs import METHODS, STEPS, generate, pictures
from graph_like import like_a_gpu
from naive_kvsmooth import naive_decode
from PIL import Image
from transformers import DynamicCache

from kvtune import KVSmooth
from kvtune.captioning import Captioner, CaptionRequest
from kvtune.captioning.trace import spelt, trace_caption
from kvtune.errors import RequestError
from kvtune.hf import CACHE
from kvtune.models import family_of, get_family
from kvtune.models.decoder_inputs import put_together

FAMILIES = list(SAVERS)
GROUPED = {name: {"kv_heads": 2} for name in FAMILIES if "qwen" not in name}
GROUPED |= {name: {} for name in FAMILIES if "qwen" in name}


def first_position(vlm, inputs):
    """Rotary position after the prompt of one row; an image of Qwen's takes as many as its longer side has tokens."""
    if "image_grid_thw" not in inputs:
        return inputs["input_ids"].shape[1]
    _, height, width = inputs["image_grid_thw"][0].tolist()
    visual = int((inputs["input_ids"] == vlm.hf_model.config.image_token_id).sum())
    return inputs["input_ids"].shape[1] - visual + max(height, width) // 2


@pytest.mark.parametrize("name", FAMILIES)
def test_loads_by_path(loaded, checkpoint, name):
    vlm = loaded(name)
    assert type(vlm.family) is type(get_family(name)) is type(family_of(vlm.hf_model.config.model_type))
    assert vlm.n_layers == LAYERS and vlm.dtype == torch.float64 and vlm.dtype_name == "float64"
    assert vlm.model_id == str(checkpoint(name)) and vlm.name == checkpoint(name).name
    assert vlm.revision is None and vlm.quantization is None and vlm.published_preset is None
    assert not vlm.hf_model.training


@pytest.mark.parametrize("name", FAMILIES)
def test_visual_tokens_are_where_the_image_enters(loaded, name):
    """Another image changes the decoder's input there and nowhere else, but for LLaVA-NeXT's line ends."""
    vlm = loaded(name)
    inputs, others = vlm.prepare(pictures(0)), vlm.prepare(pictures(1))
    prompts = [vlm.family.decoder_inputs(vlm, pictures(seed)) for seed in (0, 1)]
    for one, other in zip(*prompts, strict=True):
        changed, visual = (one.embeddings != other.embeddings).any(-1), one.visual.mask
        same = one.embeddings[visual & ~changed]
        if name == "llava-next":
            assert len(same) and (same == vlm.hf_model.model.image_newline).all()
        else:
            assert not len(same)
        assert changed.any() and not (changed & ~visual).any()
        assert one.visual.first == changed.int().argmax() and not changed[one.visual.end :].any()
    assert torch.equal(inputs["input_ids"], others["input_ids"])


@pytest.mark.parametrize("name", FAMILIES)
def test_the_decoder_takes_what_generate_gives_it(loaded, name):
    """Taken apart by row, put together again and decoded by hand, as an engine does it, in a padded batch."""
    vlm = loaded(name)
    inputs = vlm.prepare(pictures())
    expected = generate(vlm, inputs)
    cache, mask, written = DynamicCache(config=vlm.decoder.config), inputs["attention_mask"], []
    prompts = vlm.family.decoder_inputs(vlm, pictures())
    positions = torch.tensor([prompt.next_position for prompt in prompts])
    with torch.no_grad():
        hidden = vlm.decoder(**put_together(prompts), **{CACHE: cache}, use_cache=True).last_hidden_state
        for step in range(STEPS):
            tokens = vlm.hf_model.get_output_embeddings()(hidden[:, -1]).argmax(-1)
            written.append(tokens)
            mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
            hidden = vlm.decoder(
                inputs_embeds=vlm.hf_model.get_input_embeddings()(tokens[:, None]),
                attention_mask=mask,
                position_ids=positions[:, None] + step,
                **{CACHE: cache},
            ).last_hidden_state
    assert torch.stack(written, dim=1).tolist() == expected


@pytest.mark.parametrize("name", FAMILIES)
def test_rows_of_a_padded_batch_are_as_alone(loaded, name):
    vlm = loaded(name)
    batch = generate(vlm, vlm.prepare(pictures()))
    assert batch == [generate(vlm, vlm.prepare([picture]))[0] for picture in pictures()]
    assert len({tuple(row) for row in batch}) > 1


@pytest.mark.parametrize("name", FAMILIES)
def test_kvsmooth_equals_the_naive_reference(loaded, name):
    """Float64, fewer key and value heads than heads: tokens, keys and values."""
    vlm = loaded(name, **GROUPED[name])
    assert vlm.decoder.config.num_key_value_heads < vlm.decoder.config.num_attention_heads
    model, changed = vlm.hf_model, 0
    for picture, method in zip(pictures() + pictures(1), [None, *METHODS], strict=True):
        inputs = vlm.prepare([picture])
        parameters = method.parameters() if method else None
        expected = naive_decode(model, inputs, parameters, STEPS, first_position=first_position(vlm, inputs))
        if method is None:
            assert generate(vlm, inputs)[0] == expected.tokens
            continue
        changed += generate(vlm, inputs)[0] != expected.tokens
        with method(model), torch.no_grad():
            result = model.generate(**inputs, max_new_tokens=STEPS, eos_token_id=None, return_dict_in_generate=True)
        tokens = result.sequences[0, inputs["input_ids"].shape[1] :].tolist()
        assert tokens == expected.tokens
        for layer, cached in enumerate(result[CACHE].layers):
            known = cached.keys.shape[2]
            torch.testing.assert_close(cached.keys, expected.keys[layer][:, :, :known], rtol=0, atol=1e-5)
            torch.testing.assert_close(cached.values, expected.values[layer][:, :, :known], rtol=0, atol=1e-5)
    assert changed > 1


@pytest.mark.parametrize("name", FAMILIES)
def test_captions_equal_generate(loaded, name, monkeypatch):
    """Several images and methods in flight, through the captioner; also in the way in which it works on a GPU."""
    vlm = loaded(name)
    wanted = [(index, method) for index in range(len(pictures())) for method in (None, *METHODS[:2])]
    requests = [CaptionRequest(index, pictures()[index], method, (index, method)) for index, method in wanted]
    expected = {}
    for index, method in wanted:
        inputs = vlm.prepare([pictures()[index]])
        with method(vlm.hf_model) if method else nullcontext():
            tokens = generate(vlm, inputs, eos_token_id=vlm.eos_token_ids)[0]
        expected[index, method] = [token for token in tokens if token not in vlm.eos_token_ids]
    for replayed in (False, True):
        made = like_a_gpu(monkeypatch) if replayed else []
        captions = {caption.tag: caption for caption in Captioner(vlm, max_new_tokens=STEPS).run(requests)}
        assert {tag: list(caption.token_ids) for tag, caption in captions.items()} == expected
        assert all(caption.text == vlm.decode(caption.token_ids) for caption in captions.values())
        assert (sum(steps.replays for steps in made) > 0) == replayed


@pytest.mark.parametrize("name", FAMILIES)
def test_traces_equal_the_naive_reference(loaded, name):
    vlm = loaded(name, **GROUPED[name])
    words = spelt(vlm, ["cat", "image", "dining table"])
    for method in (None, METHODS[0], METHODS[3]):
        picture = pictures()[0]
        trace = trace_caption(vlm, picture, method, words, max_new_tokens=STEPS)
        inputs = vlm.prepare([picture])
        # For entropies of a model without a method, one that does nothing.
        parameters = (method or KVSmooth(0.0, 1, 0.0, 0, 3)).parameters()
        expected = naive_decode(vlm.hf_model, inputs, parameters, STEPS, first_position=first_position(vlm, inputs))
        count = len(trace.token_ids)
        assert list(trace.token_ids) == expected.tokens[:count]
        np.testing.assert_allclose(trace.entropy[:-1], expected.entropies[: count - 1], rtol=0, atol=1e-5)
        smoothed = range(method.start_layer, method.end_layer) if method else []
        for layer in range(LAYERS):
            factors = [step[layer] for step in expected.factors] if layer in smoothed else [np.nan] * STEPS
            np.testing.assert_allclose(trace.smoothing[:-1, layer], factors[: count - 1], rtol=0, atol=1e-5)
        for place, logits in enumerate(expected.logits[:count]):
            for column, word in enumerate(words):
                logit = logits[word.token_id].item()
                assert trace.logits[place, column] == pytest.approx(logit, abs=1e-5)
                assert trace.ranks[place, column] == 1 + sum(other > logit for other in logits.tolist())


@pytest.mark.parametrize("name", FAMILIES)
def test_beams_and_a_method_go_together(loaded, name):
    vlm = loaded(name)
    inputs = vlm.prepare(pictures())
    with METHODS[0](vlm.hf_model):
        batch = generate(vlm, inputs, num_beams=3)
        alone = [generate(vlm, vlm.prepare([picture]), num_beams=3)[0] for picture in pictures()]
    assert batch == alone


@pytest.mark.parametrize("name", FAMILIES)
def test_decoding_is_greedy_whatever_the_checkpoint_says(loaded, name):
    vlm = loaded(name)
    writers = [module for module in vlm.hf_model.modules() if hasattr(module, "generation_config")]
    assert writers[0] is vlm.hf_model
    for writer in writers:
        config = writer.generation_config
        assert config.repetition_penalty in (None, 1.0) and not config.do_sample and config.num_beams in (None, 1)
        assert config.eos_token_id is not None and config.pad_token_id is not None
    assert vlm.eos_token_ids


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("size", [(1, 1), (1, 60), (90, 1), (3, 3), (1, 300), (400, 1), (1600, 1200)], ids=str)
def test_odd_images_are_captioned_or_refused_in_a_line(loaded, name, size):
    vlm = loaded(name, dtype="float32")
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    try:
        inputs = vlm.prepare([image, pictures()[0]])
    except RequestError as error:
        assert f"cannot take an image of {size[0]}x{size[1]} pixels" in str(error) and "\n" not in str(error)
        return
    assert len(generate(vlm, inputs, max_new_tokens=2)) == 2
