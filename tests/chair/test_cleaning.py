"""What is cut from captions before they are scored."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvtune.chair import CaptionReader
from kvtune.chair.cleaning import Cleaning, complete_sentences, cut_end_marks, is_cut_off, read_line_breaks
from kvtune.chair.notes import look_at_cleaning

READER = CaptionReader()


@pytest.mark.parametrize(
    "written",
    [
        "A cat.</s>", "A cat. </s>", "<s> A cat.</s>", "</s>A cat.", "A cat.</S>", "A cat.<|im_end|>",
        "A cat.<|endoftext|>", "A cat.<|eot_id|>", "A cat.<end_of_turn>", "A cat.<eos>", "A cat.[EOS]",
        "A cat.</s><pad><pad>", "A cat.<unk>", "<bos>A cat.<end_of_utterance>",
        "<｜begin▁of▁sentence｜>A cat.<｜end▁of▁sentence｜>",
        "<answer>A cat.</answer>",
        "A cat.###", "A cat.### Human: a dog", "###Human: a dog? ###Assistant: A cat.###",
        "<|im_start|>user\nA dog?<|im_end|>\n<|im_start|>assistant\nA cat.<|im_end|>",
        "A cat.<|im_end|>\n<|im_start|>user\nA dog?<|im_end|>\n<|im_start|>assistant\nA bus.<|im_end|>",
        "<|begin_of_text|><|start_header_id|>assistant<|end_header_id|>\n\nA cat.<|eot_id|>",
        "<start_of_turn>user\nA dog?<end_of_turn>\n<start_of_turn>model\nA cat.<end_of_turn>",
    ],
)  # fmt: skip
def test_special_tokens_are_cut(written):
    assert cut_end_marks(written).strip() == "A cat."
    assert Cleaning()(written).strip() == "A cat."
    assert Cleaning(as_written=True)(written) == written


@pytest.mark.parametrize(
    "text",
    ["A cat.", "", "### Objects\n- a cat", "a < b > c", "<|> a", "A cat [sic]. A dog [END]", "5 </ 6", "|eos|", "</S"],
)
def test_other_text_is_left_alone(text):
    assert Cleaning()(text) == text


@given(st.text(alphabet="ab .,!?\n'\"()[]-*", max_size=60))
def test_text_without_marks_is_never_changed(text):
    assert Cleaning()(text) == text


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("A cat <unk> sits.</s>", "A cat sits."),
        ("A cat.[UNK] A dog.", "A cat. A dog."),
        (
            "<|object_ref_start|>A cat<|object_ref_end|><|box_start|>(1,2)<|box_end|> sits.<|im_end|>",
            "A cat (1,2) sits.",
        ),
        (
            "<think>a dog?</think><answer><|begin_of_box|>A cat.<|end_of_box|></answer>",
            "<think>a dog?</think><answer> A cat.",
        ),
        ("<|begin_of_thought|>a dog?<|end_of_thought|> A cat.<|eot_id|>", None),
    ],
)
def test_tokens_that_mark_a_part_do_not_end_a_caption(written, kept):
    kept = kept or written.removesuffix("<|eot_id|>")
    assert " ".join(cut_end_marks(written).split()) == kept


def test_the_classic_reading_loses_the_word_before_a_mark():
    assert READER.read("A man next to a truck.<|im_end|>").mentions == ["person"]
    assert READER.read(Cleaning()("A man next to a truck.<|im_end|>")).mentions == ["person", "truck"]


def test_literal_line_breaks():
    assert read_line_breaks(r"- A dog\n- A cat\r\n- A bus") == "- A dog\n- A cat\n- A bus"
    assert READER.read(Cleaning()(r"- A dog\n- A cat\n- A horse")).mentions == ["dog", "cat", "horse"]
    assert Cleaning(as_written=True)(r"A\nB") == r"A\nB"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("A dog. A cat on", "A dog."),
        ("A dog. A cat.", "A dog. A cat."),
        ("A dog.\n\nIn addition to", "A dog."),
        ('He says "hi." She', 'He says "hi."'),
        ("A dog! Is it? It", "A dog! Is it?"),
        ("It is 7.5 m wide. And 3.2", "It is 7.5 m wide."),
        ("one sentence without an end", "one sentence without an end"),
        ("", ""),
    ],
)
def test_complete_sentences(text, kept):
    assert complete_sentences(text) == kept
    assert Cleaning(complete_sentences=True)(text) == kept


def test_sentences_are_completed_after_marks_are_cut():
    assert Cleaning(complete_sentences=True)("A dog. A cat on</s>") == "A dog."


def test_the_answer():
    after = Cleaning(answer_after="</think>")
    assert after("<think>a cat</think>\n\nA dog.") == "\n\nA dog."
    assert after("<think></think>a</think>A dog.") == "A dog."
    assert after("A dog.") == "A dog."
    assert Cleaning(answer_after="")("A dog.") == "A dog."
    assert after("<think>a cat</think><answer>A dog.</answer>") == "A dog."


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("A dog. A cat is", True), ("A dog.\n\nThe", True), ("a " * 31, True),
        ("A dog.", False), ("A dog. A cat is", True), ("a man riding a horse", False), ("", False), ("A dog...", False),
        ("- a dog\n- a cat", False), ("1. a dog\n2. a cat", False), ("- a dog\n- " + "a " * 31, False),
        ("1. A dog is there.\n2. A cat is", True), ('A "dog."', False), ("A dog.**", False), ("一只狗。", False),
    ],
)  # fmt: skip
def test_what_is_cut_off(text, cut):
    assert is_cut_off(text) is cut


def test_a_mark_that_no_caption_has_is_said():
    """A misspelt one would leave every caption whole, in silence."""
    (note,) = look_at_cleaning(["A dog.", "Answer: A cat."], Cleaning(answer_after="Anser:"))
    assert (note.kind, note.count) == ("answer-after", 2)
    assert note.text == "No 'Anser:' to read after: 2 of 2 captions (100 %), whole"
    assert look_at_cleaning(["A dog.", "Answer: A cat."], Cleaning(answer_after="Answer:")) == []
