"""InstructBLIP: the question to Q-Former and language model, the queries before "</s>", LAVIS's ways of decoding."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, BlipImageProcessorPil

from kvtune.errors import RequestError
from kvtune.models import load_model

IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8))
QUESTION = ["▁", "Ple", "as", "e", "▁", "descri", "be", "▁this", "▁image", "▁in", "▁detail", "."]


def test_the_token_ids(loaded):
    vlm = loaded("instructblip")
    inputs = vlm.prepare([IMAGE, IMAGE])
    tokens = vlm.tokenizer.convert_ids_to_tokens(inputs["input_ids"][1])
    assert tokens == ["<image>"] * 4 + ["</s>"] + QUESTION
    assert inputs["input_ids"][0, 4] == 2
    asked = vlm.processor.qformer_tokenizer.convert_ids_to_tokens(inputs["qformer_input_ids"][1])
    assert " ".join(asked) == "[CLS] please describe this image in detail . [SEP]"
    assert inputs["attention_mask"].all() and inputs["qformer_attention_mask"].all()


def test_the_inputs_are_those_of_transformers_processor(loaded, checkpoint):
    vlm, processor = loaded("instructblip"), AutoProcessor.from_pretrained(checkpoint("instructblip"))
    processor.image_processor = vlm.processor.image_processor  # not torchvision's, where that is installed
    published = processor(images=[IMAGE], text=["Please describe this image in detail."], return_tensors="pt")
    inputs = vlm.prepare([IMAGE])
    assert set(published) == set(inputs)
    for key, value in inputs.items():
        assert torch.equal(value, torch.as_tensor(published[key])), key


def test_the_pixels_are_resized_square(loaded):
    """Bicubic to 224 x 224 whatever the shape, as LAVIS does it, against Pillow and plain arithmetic."""
    mean, spread = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
    pixels = BlipImageProcessorPil(size={"height": 224, "width": 224})(IMAGE, return_tensors="pt")["pixel_values"][0]
    resized = np.asarray(IMAGE.resize((224, 224), Image.Resampling.BICUBIC), dtype=np.float64)
    expected = torch.tensor((resized / 255 - mean) / spread).permute(2, 0, 1)
    torch.testing.assert_close(pixels.double(), expected, rtol=0, atol=1e-5)


def test_the_question_reaches_the_q_former(loaded):
    """Another question changes what the image is turned into; the queries' embeddings are the projected output."""
    vlm = loaded("instructblip")
    model = vlm.hf_model
    questions = ("Please describe this cat", "Please describe this dog")
    cat, dog = (vlm.family.decoder_inputs(vlm, [IMAGE], each)[0].embeddings for each in questions)
    with torch.no_grad():
        inputs = vlm.prepare([IMAGE], "Please describe this dog")
        image = model.vision_model(pixel_values=inputs["pixel_values"]).last_hidden_state
        queries = model.query_tokens
        read = model.qformer(
            input_ids=inputs["qformer_input_ids"],
            attention_mask=torch.ones(1, 4 + inputs["qformer_input_ids"].shape[1]),
            query_embeds=queries,
            encoder_hidden_states=image,
        ).last_hidden_state[:, :4]
    torch.testing.assert_close(dog[:4], model.language_projection(read)[0], rtol=0, atol=1e-9)
    assert not torch.allclose(cat[:4], dog[:4])
    assert torch.equal(dog[4:], model.get_input_embeddings()(inputs["input_ids"])[0, 4:])


def test_a_language_model_in_half_precision_leaves_the_rest_in_float32(checkpoint):
    for dtype in ("float16", "bfloat16"):
        vlm = load_model(checkpoint("instructblip"), device="cpu", dtype=dtype)
        model = vlm.hf_model
        kinds = {name: {p.dtype for p in part.parameters()} for name, part in model.named_children()}
        assert kinds.pop("language_model") == {getattr(torch, dtype)} == {vlm.dtype}
        assert set.union(*kinds.values(), {model.query_tokens.dtype}) == {torch.float32}
        with torch.no_grad():
            output = model.generate(**vlm.prepare([IMAGE]), max_new_tokens=3, eos_token_id=None)
        assert output.shape[1] == 4 + 1 + len(QUESTION) + 3
        assert type(model).__name__ == "InstructBlipForConditionalGeneration"


def test_on_a_gpu_the_evaluations_type_stands_for_the_stored_one(loaded):
    from kvtune.models.loading import resolve_dtype

    vlm = loaded("instructblip")
    gpu = torch.device("cuda")
    assert resolve_dtype("auto", gpu, vlm.hf_model.config, vlm.family.evaluation_dtype) == torch.float16
    assert resolve_dtype("auto", torch.device("cpu"), vlm.hf_model.config, torch.float16) == torch.float32


def test_unknown_tokens_are_end_of_text_to_a_caption(loaded):
    vlm = loaded("instructblip")
    ids = vlm.tokenizer.convert_tokens_to_ids(["▁A", "▁chat", "<unk>", "▁on", "</s>", "<unk>"])
    assert vlm.decode(ids) == "A chat on"


def test_a_prompt_longer_than_the_q_former_takes_is_refused(loaded):
    with pytest.raises(RequestError, match="is 72 tokens for the Q-Former, which takes 64"):
        loaded("instructblip").prepare([IMAGE], "cat " * 70)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"text_config": {"model_type": "t5"}}, "its language model is 't5'"),
        ({"image_token_index": None}, "from before transformers gave images tokens"),
    ],
)
def test_checkpoints_of_another_making_are_refused(checkpoint, tmp_path, change, message):
    settings = json.loads((checkpoint("instructblip") / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | change))
    with pytest.raises(RequestError, match=message):
        load_model(tmp_path)
