import numpy as np
import pytest
import torch
from transformers import AutoProcessor, LlavaForConditionalGeneration

from kvtune.demo import train
from kvtune.demo.canvas import SIZE
from kvtune.demo.scenes import CATEGORIES, TRAINED, render
from kvtune.demo.small_llava import PATCH, PROMPT, TEMPLATE, build_model


@pytest.fixture(scope="module")
def data_and_tokenizer():
    return train.make_data(scenes=24, captions=3, seed=0)


@pytest.fixture(scope="module")
def prompt_ids(data_and_tokenizer):
    text = TEMPLATE.format(prompt=PROMPT).replace("<image>", "<image>" * 64)
    return torch.tensor(data_and_tokenizer[1](text)["input_ids"])


def test_patch_labels_are_what_the_patches_show(data_and_tokenizer):
    data, _ = data_and_tokenizer
    scene = render(0, 1, TRAINED)
    assert np.array_equal(data.pixels[0].numpy(), scene.pixels)
    for y in range(SIZE // PATCH):
        for x in range(SIZE // PATCH):
            window = scene.instances[y * PATCH : (y + 1) * PATCH, x * PATCH : (x + 1) * PATCH]
            shown = {one.category for index, one in enumerate(scene.objects, start=1) if (window == index).sum() >= 5}
            labels = data.patches[0, y * (SIZE // PATCH) + x, : len(CATEGORIES)]
            assert {CATEGORIES[i] for i in labels.nonzero().flatten().tolist()} == shown


def test_packed_loss_equals_captions_taken_one_by_one(data_and_tokenizer, prompt_ids):
    """Several captions behind one prompt must not see each other: the loss is that of each on its own."""
    data, tokenizer = data_and_tokenizer
    model = build_model(tokenizer, seed=1).double().eval()
    rows = [3, 7]
    captions = [data.captions[3][:2], data.captions[7]]
    batch = train._make_batch(rows, captions, len(prompt_ids))
    data64 = train.Data(data.pixels, data.patches, data.kinds, data.captions)
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "_pixel_values", lambda pixels, device: pixels.permute(0, 3, 1, 2).double() / 64 - 2)
        packed = train.caption_loss(model, data64, batch, prompt_ids)
        total, count = 0.0, 0
        for row, ones in zip(rows, captions, strict=True):
            values = data.pixels[[row]].permute(0, 3, 1, 2).double() / 64 - 2
            for tokens in ones:
                ids = torch.cat([prompt_ids, torch.tensor(tokens)])[None]
                logits = model(input_ids=ids, pixel_values=values).logits[0, len(prompt_ids) - 1 : -1]
                logp = logits.float().log_softmax(-1)
                total -= logp[torch.arange(len(tokens)), torch.tensor(tokens)].sum().item()
                count += len(tokens)
    assert packed.item() == pytest.approx(total / count, rel=1e-5)


def test_words_are_forgotten_of_captions_alone_and_in_half_of_the_rows():
    torch.manual_seed(0)
    segments = torch.tensor([0] * 5 + [1] * 30 + [2] * 30 + [-1] * 3).expand(400, -1)
    forgotten = train._forgotten(segments)
    assert not forgotten[:, :, :5].any() and not forgotten[:, :, -3:].any()
    assert not forgotten.diagonal(dim1=1, dim2=2).any()
    share = forgotten[:, :, 5:65].float().mean(dim=(1, 2))
    assert 0.4 < (share == 0).float().mean() < 0.6 and 0.8 < share.max() < 0.9
    assert 0.3 < share[share > 0].mean() < 0.6


def test_a_short_training_learns_and_saves(data_and_tokenizer, prompt_ids, tmp_path):
    data, tokenizer = data_and_tokenizer
    model = build_model(tokenizer, seed=0)
    batch = train._make_batch([0, 1], [data.captions[0][:1], data.captions[1][:1]], len(prompt_ids))
    before = train.caption_loss(model, data, batch, prompt_ids).item()
    train.train_vision(model, data, steps=2, seed=0, batch=8)
    train.train_captions(model, tokenizer, data, steps=10, seed=0, out=tmp_path, batch=1, per_scene=2)
    after = train.caption_loss(model, data, batch, prompt_ids).item()
    assert after < before - 0.5

    train.save(model, tokenizer, tmp_path / "final")
    loaded = LlavaForConditionalGeneration.from_pretrained(tmp_path / "final")
    assert loaded.dtype == torch.float16
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value.half()), name
    assert AutoProcessor.from_pretrained(tmp_path / "final").tokenizer.get_vocab() == tokenizer.get_vocab()


def test_the_same_seed_trains_the_same_model(data_and_tokenizer, tmp_path):
    data, tokenizer = data_and_tokenizer
    states = []
    for name in ("one", "two"):
        model = build_model(tokenizer, seed=5)
        train.train_vision(model, data, steps=2, seed=5, batch=4)
        train.train_captions(model, tokenizer, data, steps=2, seed=5, out=tmp_path / name, batch=2, per_scene=1)
        states.append(model.state_dict())
    for key, value in states[0].items():
        assert torch.allclose(value, states[1][key], atol=1e-6), key
