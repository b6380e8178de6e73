"""Prompt text to token ids as the evaluations' tokenizers give them."""

import pytest
import torch
from checkpoints import SAVERS
from family_runs import pictures
from hypothesis import given, settings
from hypothesis import strategies as st
from newer_checkpoints import NEWER
from tokenizers_made_here import llama_tokenizer, qwen_tokenizer
from transformers import LlamaTokenizer

from kvtune.errors import RequestError
from kvtune.models.prompt_ids import chat_segments, is_sentencepiece, prompt_rows, segment_ids, some_rows

CORPUS = ["A chat between a curious user and an assistant.", "USER: Please describe ### this image", "  two  spaces\n"]


@pytest.fixture(scope="module")
def sentencepiece_model(tmp_path_factory):
    """SentencePiece itself, trained as Llama's was: bytes for what is unknown, every space kept, one put in front."""
    sentencepiece = pytest.importorskip("sentencepiece", reason="sentencepiece is in kvtune's test extra")
    prefix = tmp_path_factory.mktemp("sentencepiece") / "tokenizer"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 20), model_prefix=str(prefix), model_type="bpe", vocab_size=330,
        byte_fallback=True, add_dummy_prefix=True, remove_extra_whitespaces=False, split_digits=True,
        normalization_rule_name="identity", allow_whitespace_only_pieces=True, minloglevel=2,
        max_sentencepiece_length=16, hard_vocab_limit=False,
    )  # fmt: skip
    (prefix.parent / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    converted = LlamaTokenizer.from_pretrained(prefix.parent)
    return sentencepiece.SentencePieceProcessor(model_file=f"{prefix}.model"), converted


@settings(max_examples=150, deadline=None)
@given(text=st.text(alphabet="aeUSER: Please#<>/\n.é ", max_size=40))
def test_segments_are_as_sentencepiece_cuts_them(sentencepiece_model, text):
    reference, tokenizer = sentencepiece_model
    assert is_sentencepiece(tokenizer)
    assert segment_ids(tokenizer, text) == reference.encode(text)


@pytest.mark.parametrize("legacy", [True, False])
def test_a_segment_starts_with_a_space_of_its_own(legacy):
    tokenizer = llama_tokenizer(("<image>",), legacy=legacy)
    tokens = tokenizer.convert_ids_to_tokens(segment_ids(tokenizer, " cat on\n ###"))
    assert tokens == ["▁▁", "cat", "▁on", "<0x0A>", "▁###"]
    assert tokenizer.convert_ids_to_tokens(segment_ids(tokenizer, "###")) == ["▁###"]
    assert segment_ids(tokenizer, "") == []


def test_special_tokens_in_a_question_are_plain_text_to_sentencepiece():
    tokenizer = llama_tokenizer(("<image>",))
    ids = segment_ids(tokenizer, "cat <image> </s>")
    assert not {2, tokenizer.convert_tokens_to_ids("<image>")} & set(ids)
    assert tokenizer.decode(ids) == "cat <image> </s>"


def test_byte_level_tokenizers_take_text_as_it_is():
    tokenizer = qwen_tokenizer()
    assert not is_sentencepiece(tokenizer)
    ids = segment_ids(tokenizer, "<|im_start|>user\nPlease")
    assert ids[0] == tokenizer.convert_tokens_to_ids("<|im_start|>")
    assert tokenizer.decode(ids) == "<|im_start|>user\nPlease"


def test_rows_are_padded_on_the_left():
    rows = prompt_rows([([1, 7], 3, [8, 9]), ([1], 1, [8])], image_token_id=5, pad_token_id=0)
    assert rows["input_ids"].tolist() == [[1, 7, 5, 5, 5, 8, 9], [0, 0, 0, 0, 1, 5, 8]]
    assert rows["attention_mask"].tolist() == [[1] * 7, [0, 0, 0, 0, 1, 1, 1]]


@pytest.mark.parametrize("name", [*SAVERS, *NEWER])
def test_some_rows_of_a_batch_are_what_is_prepared_of_them(loaded, newer, name):
    """To the last bit what the decoder is given, of pictures that make long prompts and short ones."""
    vlm = loaded(name) if name in SAVERS else newer(name)
    images = [picture.resize((size * picture.width, picture.height)) for picture in pictures() for size in (1, 4)]
    inputs = vlm.prepare_on_host(images)
    counts = vlm.family.visual_tokens(vlm, inputs).sum(1).tolist()
    for begin, end in [(0, 6), (0, 1), (1, 3), (3, 6), (5, 6)]:
        own, alone = some_rows(inputs, counts, begin, end), vlm.prepare_on_host(images[begin:end])
        assert own["input_ids"].tolist() == alone["input_ids"].tolist()
        assert own["attention_mask"].tolist() == alone["attention_mask"].tolist()
        with torch.inference_mode():
            parts, whole = (vlm.family.decoder_inputs(vlm, images[begin:end], None, given) for given in (own, alone))
        for one, other in zip(parts, whole, strict=True):
            assert one.after_image == other.after_image and one.next_position == other.next_position
            torch.testing.assert_close(one.tensors, other.tensors, rtol=0, atol=0, equal_nan=True)


def test_pixels_of_which_it_is_not_known_whose_they_are():
    rows = prompt_rows([([1], count, []) for count in (2, 3)], 5, 0)
    assert some_rows({**rows, "pixel_values": torch.zeros(10, 3)}, [2, 3], 0, 1)["pixel_values"].shape == (4, 3)
    unknown = {**rows, "pixel_values": torch.zeros(7, 3)}
    assert some_rows(unknown, [2, 3], 0, 1) is None
    assert some_rows(unknown, [2, 3], 0, 2) is unknown


def test_an_image_token_in_the_text_is_refused():
    with pytest.raises(RequestError, match="must not contain the image's own token"):
        prompt_rows([([1], 2, [5])], image_token_id=5, pad_token_id=0)


def test_a_chat_template_gives_its_own_beginning_of_text_or_gets_one():
    tokenizer = llama_tokenizer(("<image>",))
    question = (
        "{% for part in messages[0]['content'] %}{{ '<image>' if part.type == 'image' else part.text }}{% endfor %}"
    )
    without = chat_segments(tokenizer, "user " + question + " on", "<image>", " cat")
    with_one = chat_segments(tokenizer, "{{ bos_token }}user " + question, "<image>", " cat")
    assert tokenizer.convert_ids_to_tokens(without[0]) == ["<s>", "▁user", "▁"]
    assert tokenizer.convert_ids_to_tokens(without[1]) == ["▁▁", "cat", "▁on"]
    assert tokenizer.convert_ids_to_tokens(with_one[0]) == ["<s>", "▁user", "▁"]
    with pytest.raises(RequestError, match="puts no <image>"):
        chat_segments(tokenizer, "user", "<image>", "cat")
