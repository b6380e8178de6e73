"""MiniGPT-4: converted from its published files, computed as they compute, prompted and cut as OPERA does."""

import pickle
from collections import Counter
from pathlib import Path

import minigpt4_files
import numpy as np
import pytest
import torch
from minigpt4_files import image_features, query_output, read_files, write_files
from PIL import Image
from transformers import Blip2VisionConfig

from kvtune import KVSmooth
from kvtune.captioning import Captioner, CaptionRequest
from kvtune.captioning.request import cut
from kvtune.errors import KvtuneError, RequestError
from kvtune.methods import VAF
from kvtune.models import get_family, load_model
from kvtune.models.minigpt4 import convert
from kvtune.models.minigpt4.convert import convert_minigpt4
from kvtune.models.minigpt4.model import MiniGpt4Config, MiniGpt4ForConditionalGeneration

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8))
PROMPT = (
    "<s> ▁### Hum an : ▁ < Img >"
    + " <unk>" * 32
    + " ▁ < / Img > ▁ Ple as e ▁ descri be ▁this ▁image ▁in ▁detail . ▁###"
    " Assist an t :"
).split()


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Conversion to the scaled-down sizes of the test's files."""
    monkeypatch.setattr(convert, "VISION", minigpt4_files.VISION)
    monkeypatch.setattr(convert, "QFORMER", minigpt4_files.QFORMER)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write_files(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def converted(files, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(convert, "VISION", minigpt4_files.VISION)
        patch.setattr(convert, "QFORMER", minigpt4_files.QFORMER)
        steps = []
        result = convert_minigpt4(**files, out=tmp_path_factory.mktemp("models") / "minigpt4", on_step=steps.append)
    assert len(steps) == 7 and steps[-1] == "checking what was written"
    return result


@pytest.fixture(scope="module")
def vlm(converted):
    return load_model(converted.folder, device="cpu", dtype="float64")


def test_the_published_sizes_map_onto_the_model_whole(monkeypatch, tmp_path):
    """Names and shapes of the published EVA, Q-Former and projection, without their numbers."""
    sizes = {"WIDTH": 1408, "PATCH": 14, "SIDE": 224, "BLOCKS": 39, "MLP": 6144}
    sizes |= {"Q_WIDTH": 768, "Q_LAYERS": 12, "Q_MLP": 3072}
    for name, size in sizes.items():
        monkeypatch.setattr(minigpt4_files, name, size)
    monkeypatch.setattr(convert, "VISION", Blip2VisionConfig())
    with torch.device("meta"):
        needed = {
            name: tuple(t.shape) for name, t in MiniGpt4ForConditionalGeneration(MiniGpt4Config()).state_dict().items()
        }

    def empty(*shape):
        return torch.empty(shape, device="meta")

    found = {}
    for tensors, rename in (
        (minigpt4_files.eva_tensors(empty), convert.eva_name),
        (minigpt4_files.qformer_tensors(empty), convert.qformer_name),
        (minigpt4_files.linear(empty, "llama_proj", 768, 4096), convert.projection_name),
    ):
        monkeypatch.setattr(convert, "stored_tensors", lambda path, tensors=tensors: iter(tensors.items()))
        found |= convert.renamed_tensors(tmp_path, rename, needed)
    language = {name for name in needed if name.startswith(("language_model.", "lm_head."))}
    assert len(language) == 9 * 32 + 3
    assert found.keys() == needed.keys() - language


def test_every_tensor_of_the_model_comes_from_the_files(converted, vlm):
    state = vlm.hf_model.state_dict()
    assert converted.tensors == len(state)
    assert converted.parameters == sum(parameter.numel() for parameter in vlm.hf_model.parameters())


def test_it_computes_what_the_original_tensors_compute(files, vlm):
    """Image features, Q-Former output, projected embeddings, and the embeddings before the language model."""
    tensors, model, seen = read_files(files), vlm.hf_model, []
    inputs = vlm.prepare([IMAGE, IMAGE.transpose(Image.Transpose.FLIP_LEFT_RIGHT)])
    pixels = inputs["pixel_values"].double()
    image = image_features(tensors, pixels)
    read = query_output(tensors, image)
    projected = read @ tensors["llama_proj.weight"].T + tensors["llama_proj.bias"]
    hook = vlm.decoder.register_forward_pre_hook(
        lambda decoder, arguments, keywords: seen.append(keywords["inputs_embeds"]), with_kwargs=True
    )
    with torch.no_grad():
        found = model.vision_model(pixel_values=pixels).last_hidden_state
        queries = model.query_tokens.expand(2, -1, -1)
        answered = model.qformer(query_embeds=queries, encoder_hidden_states=found).last_hidden_state
        features = model.get_image_features(pixels)
        model(**inputs)
    hook.remove()
    near = {"rtol": 0, "atol": 1e-9}
    torch.testing.assert_close(found, image, **near)
    torch.testing.assert_close(answered, read, **near)
    torch.testing.assert_close(features, projected, **near)
    ids, embed = inputs["input_ids"][0], tensors["vicuna.model.embed_tokens.weight"]
    before, after = embed[ids[:9]].expand(2, -1, -1), embed[ids[41:]].expand(2, -1, -1)
    torch.testing.assert_close(seen[0], torch.cat([before, projected, after], dim=1), **near)


def test_the_last_layer_norm_has_an_eps_of_its_own(files, vlm):
    """Taken for the others' 1e-6, small variances would come out otherwise."""
    model, tensors = vlm.hf_model, read_files(files)
    faint = torch.full((1, 1, minigpt4_files.WIDTH), 1e-3, dtype=torch.float64)
    faint[..., ::2] *= -1
    expected = minigpt4_files.Part(tensors, "").norm("ln_vision", faint, 1e-5)
    torch.testing.assert_close(model.vision_model.post_layernorm(faint), expected, rtol=0, atol=1e-12)
    assert model.vision_model.encoder.layers[0].layer_norm1.eps == 1e-6


def test_the_prompts_token_ids(vlm):
    assert get_family("minigpt4").template == "###Human: <Img><ImageHere></Img> {prompt} ###Assistant:"
    inputs = vlm.prepare([IMAGE])
    assert vlm.tokenizer.convert_ids_to_tokens(inputs["input_ids"][0]) == PROMPT
    assert inputs["input_ids"][0, 0] == 1 and inputs["attention_mask"].all()
    assert vlm.eos_token_ids == [2] and vlm.pad_token_id == 2
    assert vlm.family.visual_tokens(vlm, inputs)[0].nonzero().flatten().tolist() == list(range(9, 41))


def test_the_pixels_are_resized_square_with_clips_mean(vlm):
    mean, spread = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    resized = np.asarray(IMAGE.resize((28, 28), Image.Resampling.BICUBIC), dtype=np.float64)
    expected = torch.tensor((resized / 255 - mean) / spread).permute(2, 0, 1)
    torch.testing.assert_close(vlm.prepare([IMAGE])["pixel_values"][0].double(), expected, rtol=0, atol=1e-5)


def test_half_precision_is_autocast_with_a_float32_residual(converted, files):
    """Against the same steps by hand: float16 in matrix products and convolutions, float32 between them."""
    model = load_model(converted.folder, device="cpu", dtype="float16").hf_model
    assert model.dtype == torch.float16 == next(model.language_model.parameters()).dtype
    parts = (model.vision_model, model.qformer, model.language_projection)
    assert {parameter.dtype for part in parts for parameter in part.parameters()} == {torch.float32}
    kinds = []
    hooks = [
        layer.register_forward_hook(lambda module, arguments, output: kinds.append(output.dtype))
        for layer in (model.vision_model.encoder.layers[1], model.vision_model.post_layernorm)
    ]
    hooks.append(
        model.vision_model.encoder.layers[1].mlp.fc1.register_forward_hook(lambda m, a, out: kinds.append(out.dtype))
    )
    pixels = torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = model.get_image_features(pixels)
    for hook in hooks:
        hook.remove()
    assert kinds[:3] == [torch.float16, torch.float32, torch.float32] and features.dtype == torch.float16
    tensors = read_files(files)
    image = image_features(tensors, pixels.double())
    expected = query_output(tensors, image) @ tensors["llama_proj.weight"].T + tensors["llama_proj.bias"]
    torch.testing.assert_close(features.double(), expected, rtol=0, atol=0.02)
    full = load_model(converted.folder, device="cpu", dtype="bfloat16").hf_model
    with torch.no_grad():
        torch.testing.assert_close(full.get_image_features(pixels).double(), expected, rtol=0, atol=1e-4)


def test_it_saves_and_loads_as_any_hugging_face_model(converted, vlm, tmp_path):
    vlm.hf_model.save_pretrained(tmp_path)
    again = MiniGpt4ForConditionalGeneration.from_pretrained(tmp_path)
    assert again.dtype == torch.float64 and isinstance(again.config, MiniGpt4Config)
    for name, tensor in vlm.hf_model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)
    stored = load_model(converted.folder, device="cpu").hf_model.config
    assert stored.text_config.eos_token_id == 2 and stored.image_token_id == 0


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        ("A cat on a mat. ###Human: on", "A cat on a mat."),
        ("Assistant: A cat. ### Assistant: dog", "A cat."),
        (" A cat ", "A cat"),
        ("###", ""),
    ],
)
def test_captions_are_cut_as_the_evaluation_cuts_them(vlm, text, caption):
    assert vlm.family.finish(text) == caption


def test_unknown_and_beginning_tokens_are_not_spelt_out(vlm):
    ids = vlm.tokenizer.convert_tokens_to_ids(["▁A", "<unk>", "▁cat", "<s>", "</s>"])
    assert vlm.decode(ids) == "A cat"


def test_decoding_ends_at_the_marks_and_gives_the_same_caption(vlm):
    stops = vlm.family.stop_sequences(vlm)
    tokens = [vlm.tokenizer.convert_ids_to_tokens(stop) for stop in stops]
    assert tokens == [["▁###"], ["##", "#"]]
    pictures = [IMAGE.rotate(angle) for angle in range(0, 360, 45)]
    head, mark = vlm.hf_model.lm_head.weight.data, stops[0][0]
    often = Counter(token for tokens in written(vlm, pictures) for token in set(tokens[8:])).most_common(1)[0][0]
    head[[often, mark]] = head[[mark, often]]  # the model now writes "###" where it wrote its commonest token
    try:
        whole = written(vlm, pictures)
        requests = [CaptionRequest(index, picture, None, index) for index, picture in enumerate(pictures)]
        captions = {caption.tag: caption for caption in Captioner(vlm, max_new_tokens=40).run(requests)}
    finally:
        head[[often, mark]] = head[[mark, often]]
    assert {caption.finish_reason for caption in captions.values()} >= {"stop"}
    for index, tokens in enumerate(whole):
        caption = captions[index]
        assert caption.text == vlm.decode(tokens)
        assert caption.finish_reason != "stop" or len(caption.token_ids) < len(tokens) == 40
    for text in ("▁A ▁cat ## #", "▁A ▁cat ▁###"):
        tokens = vlm.tokenizer.convert_tokens_to_ids([*text.split(), "▁dog"])
        assert vlm.decode(cut(tokens, vlm.eos_token_ids, stops)[0]) == vlm.decode(tokens) == "A cat"


def written(vlm, pictures):
    inputs = vlm.prepare(pictures)
    with torch.no_grad():
        output = vlm.hf_model.generate(**inputs, max_new_tokens=40, eos_token_id=None)
    return output[:, inputs["input_ids"].shape[1] :].tolist()


def test_kvsmooth_applies_by_context_manager(vlm):
    inputs = vlm.prepare([IMAGE])
    with torch.no_grad():
        plain = vlm.hf_model.generate(**inputs, max_new_tokens=20, eos_token_id=None)
        with KVSmooth(0.9, start_layer=0, end_layer=3)(vlm.hf_model):
            smoothed = vlm.hf_model.generate(**inputs, max_new_tokens=20, eos_token_id=None)
    assert not torch.equal(plain, smoothed)


def test_padding_by_unknown_tokens_is_no_image(vlm):
    """Whose places in a prompt are of that id too."""
    inputs = vlm.prepare([IMAGE])
    padded = inputs | {name: torch.nn.functional.pad(inputs[name], (3, 0)) for name in ("input_ids", "attention_mask")}
    with torch.no_grad(), VAF(1.5, 0.1, 0, 3)(vlm.hf_model):
        alone, beside = (
            vlm.hf_model.generate(**one, max_new_tokens=20, eos_token_id=None)[:, one["input_ids"].shape[1] :]
            for one in (inputs, padded)
        )
    assert torch.equal(alone, beside)


# Files that are not what they should be: one line each, and nothing written.


def change_tensors(path: Path, change):
    stored = torch.load(path)
    change(stored.get("model", stored))
    torch.save(stored, path)


@pytest.mark.parametrize(
    ("option", "change", "message"),
    [
        ("eva", lambda t: t.pop("blocks.1.mlp.fc1.weight"), "--eva lacks what becomes vision_model.encoder"),
        ("eva", lambda t: t.pop("blocks.0.attn.q_bias"), "--eva lacks .*layers.0.self_attn.qkv.bias"),
        ("eva", lambda t: t.update({"rel_pos_bias": torch.ones(2)}), "has rel_pos_bias, which has no place"),
        ("eva", lambda t: t.update(pos_embed=torch.ones(1, 26, 16)), r"position_embedding has shape \[1, 26, 16\]"),
        ("qformer", lambda t: t.pop("query_tokens"), "--qformer lacks what becomes query_tokens"),
        ("qformer", lambda t: t.pop("ln_vision.bias"), "--qformer lacks .*post_layernorm.bias"),
        ("qformer", lambda t: t.update({"itm_head.bias": torch.ones(2)}), "has itm_head.bias, which has no place"),
        ("checkpoint", lambda t: t.update({"llama_proj.weight": torch.ones(32, 44)}), r"shape \[32, 44\], in"),
        ("checkpoint", lambda t: t.clear(), "--checkpoint lacks what becomes language_projection.bias and 1 more"),
        ("vicuna", lambda t: t.pop("lm_head.weight", None), "--vicuna lacks what becomes lm_head.weight;"),
    ],
)  # fmt: skip
def test_a_tensor_missing_left_over_or_misshapen_is_named(tmp_path, option, change, message):
    files = write_files(tmp_path)
    for path in files[option].glob("*.bin") if option == "vicuna" else [files[option]]:
        change_tensors(path, change)
    with pytest.raises(RequestError, match=message):
        convert_minigpt4(**files, out=tmp_path / "out" / "minigpt4")
    assert not (tmp_path / "out").exists()


def test_another_vicuna_is_named(files, tmp_path):
    other = write_files(tmp_path)["vicuna"]
    config = (other / "config.json").read_text()
    for change, message in (
        ((f'"vocab_size": {len_of(other) + 1}', f'"vocab_size": {len_of(other)}'), r"trained with Vicuna v0.*not v1.x"),
        (('"hidden_size": 32', '"hidden_size": 48'), "has shape"),
        (('"num_hidden_layers": 3', '"num_hidden_layers": 4'), "--vicuna lacks what becomes language_model.layers.3"),
        (('"model_type": "llama"', '"model_type": "opt"'), "is a 'opt' model; Vicuna-7B v0 is a 'llama'"),
    ):
        assert change[0] in config
        (other / "config.json").write_text(config.replace(*change))
        with pytest.raises(RequestError, match=message):
            convert_minigpt4(**files | {"vicuna": other}, out=tmp_path / "minigpt4")
    (other / "config.json").write_text(config)
    (other / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(RequestError, match="1 of 2 weight files are missing: pytorch_model-00002"):
        convert_minigpt4(**files | {"vicuna": other}, out=tmp_path / "minigpt4")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("config.json", "{", "config.json is not a model's configuration"),
        ("config.json", "{}", "config.json is not a model's configuration"),
        ("tokenizer.json", "{", "its tokenizer cannot be read"),
        ("tokenizer.model", "not a vocabulary", "its tokenizer cannot be read"),
    ],
)
def test_a_damaged_vicuna_is_named(files, tmp_path, name, content, message):
    other = write_files(tmp_path)["vicuna"]
    for tokenizer in other.glob("tokenizer.*"):
        tokenizer.unlink() if name.startswith("tokenizer") else None
    (other / name).write_text(content)
    with pytest.raises(RequestError, match=f"--vicuna {other}.*{message}"):
        convert_minigpt4(**files | {"vicuna": other}, out=tmp_path / "minigpt4")


def len_of(vicuna):
    from transformers import LlamaTokenizer

    return LlamaTokenizer.from_pretrained(vicuna).vocab_size


def test_files_that_are_no_weights_are_named(files, tmp_path):
    (tmp_path / "text.pth").write_text("not weights")
    (tmp_path / "code.pth").write_bytes(pickle.dumps(print))
    torch.save([torch.ones(2)], tmp_path / "list.pth")
    for name, message in (
        ("nowhere.pth", "does not exist"),
        ("text.pth", "is not a file of PyTorch weights"),
        ("code.pth", "is not a file of PyTorch weights"),
        ("list.pth", "is not a file of PyTorch weights"),
    ):
        with pytest.raises(RequestError, match=f"{name} {message}"):
            convert_minigpt4(**files | {"eva": tmp_path / name}, out=tmp_path / "minigpt4")
    with pytest.raises(RequestError, match="is no folder with a Hugging Face model"):
        convert_minigpt4(**files | {"vicuna": tmp_path}, out=tmp_path / "minigpt4")


def test_what_is_there_is_not_written_over(files, tmp_path):
    with pytest.raises(RequestError, match="is there already; remove it"):
        convert_minigpt4(**files, out=tmp_path)


def test_a_failure_while_writing_leaves_nothing(files, tmp_path, monkeypatch):
    def full(*arguments, **keywords):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(MiniGpt4ForConditionalGeneration, "save_pretrained", full)
        with pytest.raises(KvtuneError, match="No space left on device"):
            convert_minigpt4(**files, out=tmp_path / "models" / "minigpt4")
    with monkeypatch.context() as patch:
        patch.setattr(torch, "equal", lambda one, other: False)
        with pytest.raises(KvtuneError, match="did not read back as it was written"):
            convert_minigpt4(**files, out=tmp_path / "models" / "minigpt4")
    assert list((tmp_path / "models").iterdir()) == []
