"""What makes captions implausible: each kind where it is, none on real captions."""

import json

import pytest

from kvtune.chair import ChairScorer, load_ground_truth, read_captions_file
from kvtune.chair.cleaning import Cleaning
from kvtune.chair.notes import look_at, look_at_cleaning, look_at_request

GOOD = (
    "The image features a dog next to a person on a couch.",
    "A man is riding a motorcycle down a street with a few cars parked on the side.",
    "There are two cats sitting on a bed, and one of them is looking at a laptop.",
)
TRUTH = {image: {"dog", "person"} for image in range(2000)}


def look(captions, truth=TRUTH, **options):
    return look_at(captions, ChairScorer(truth).counts(captions).table, **options)


def notes(texts, truth=TRUTH, **options):
    captions = [{"image_id": image, "caption": text} for image, text in enumerate(texts)]
    return {note.kind: note for note in look(captions, truth, options=True, **options)}


def test_real_captions_have_none(shared_data):
    folder = shared_data / "chair"
    file = read_captions_file(folder / "llava15_greedy_captions.jsonl")
    texts = [caption["caption"] for caption in file.captions]
    assert [Cleaning()(text) for text in texts] == [Cleaning(complete_sentences=True)(text) for text in texts] == texts
    counts = ChairScorer(load_ground_truth(folder / "ground_truth_500.json")).counts(file.captions)
    assert look_at(file.captions, counts.table, fields=file.fields, options=True) == []
    assert look_at(file.captions[:1], counts.table[:1]) == []
    assert look_at_cleaning(texts, Cleaning(complete_sentences=True)) == []


def test_reference_captions_of_coco_have_none_but_that_they_are_several(shared_data):
    data = json.loads((shared_data / "coco-mini" / "annotations" / "captions_val2017.json").read_text())
    captions = [{"image_id": each["image_id"], "caption": each["caption"]} for each in data["annotations"]]
    truth = {each["image_id"]: {"person"} for each in captions}
    assert [note.kind for note in look(captions, truth)] == ["same-image"]


def test_good_captions_have_none():
    assert notes(GOOD) == {} and notes(GOOD * 100) == {} and notes(GOOD[:1]) == {}
    assert look([]) == []


ONE_IN_THREE = {
    "empty": ["", " \n\t", "nan", "None"],
    "refusals": [
        "I'm sorry, but I cannot provide a refined passage.", "I’m unable to view images.", "Sorry, I can't help.",
        "I cannot see the image.", "As an AI language model, I have no eyes.", "I apologize, but I see no picture.",
        "Unfortunately, I am not able to see it.", "Please provide the image.", "There is no image here.",
        "I don't see an image.", "It seems you haven't attached a photo.", "It looks like there is no image.",
    ],
    "reasoning": [
        "<think>Is it a cat?</think>A dog.", "<think>Maybe a horse, or is it", "Reasoning: it has fur.\nAnswer: A dog.",
        "Let me think: it has fur. A dog.", "A dog.</think>", "◁think▷A cat◁/think▷A dog.",
    ],
    "question": [
        "USER: \nIs there a person? ASSISTANT: A dog.", "[INST] A car? [/INST] A dog.", "Question: a cat? A dog.",
        "Is there a person, a car or a chair in the image? A dog.", "Please describe this image in detail. A dog.",
    ],
    "script": ["一只狗坐在沙发上。", "Собака сидит на диване рядом с человеком."],
    "language": [
        "Ein Mann sitzt auf einem Stuhl in der Küche und liest eine Zeitung neben dem Hund und der Katze.",
        "Un homme est assis sur une chaise dans la cuisine, et il lit un journal avec son chien près de lui.",
    ],
}  # fmt: skip


@pytest.mark.parametrize(("kind", "text"), [(kind, text) for kind, texts in ONE_IN_THREE.items() for text in texts])
def test_one_caption_of_a_kind(kind, text):
    assert list(notes([*GOOD, text])) == [kind]
    found = notes([*GOOD, text])[kind]
    assert (found.count, found.share, found.is_warning) == (1, 25.0, True)
    assert "1 of 4 captions (25 %)" in found.text
    assert notes([text]).keys() >= {kind}


@pytest.mark.parametrize("kind", ["empty", "refusals", "reasoning", "question"])
def test_exact_kinds_are_said_of_one_in_a_thousand(kind):
    assert list(notes([*GOOD * 400, ONE_IN_THREE[kind][0]])) == [kind]


@pytest.mark.parametrize("kind", ["script", "language"])
def test_another_language_is_said_from_one_in_a_hundred_on(kind):
    assert notes([*GOOD * 66, ONE_IN_THREE[kind][0]]) == {}
    assert list(notes([*GOOD * 66, *ONE_IN_THREE[kind]])) == [kind]


def test_short_captions_of_another_language_are_judged_together():
    assert list(notes(["Ein Hund im Gras.", "Zwei Katzen auf Stroh.", "Drei rote Busse."])) == ["language"]
    assert notes(["pizza missing one slice on wooden serving tray", *GOOD]) == {}


def test_cures_name_the_options_that_are_there():
    text = "USER: \nIs there a person? ASSISTANT: A dog."
    assert "--answer-after 'ASSISTANT:'" in notes([text])["question"].text
    assert "--answer-after '</think>'" in notes(["<think>a</think>b"])["reasoning"].text
    assert "--answer-after 'Answer:'" in notes(["Reasoning: it has fur.\nAnswer: A dog."])["reasoning"].text
    assert "more new tokens" in notes(["<think>Maybe a horse, or is it"])["reasoning"].text
    without = look([{"image_id": 1, "caption": text}, {"image_id": 2, "caption": "A dog. A"}])
    assert [note.kind for note in without] == ["question", "token-limit"]
    assert not any("--" in note.text for note in without)


def test_no_objects():
    found = notes([str(number) for number in range(30)], fields=("image_id", "caption", "te\x1bxt"))["no-objects"]
    assert (found.count, found.share) == (30, 100)
    assert found.text.endswith("is --caption-key right? The file's fields: image_id, caption, te xt")
    assert "no-objects" not in notes(["A field.", "A dog.", "A cat."])
    assert notes(["A field.", "A dog."])["no-objects"].count == 1
    assert "no-objects" not in notes(["", ""])  # empty, and nothing else


def test_no_truth():
    assert notes(GOOD, dict.fromkeys(range(9), ()))["no-truth"].count == 3


def test_one_caption_that_decides_chair_i():
    endless = "A dog. " + "a handbag, a book, " * 60
    found = notes([endless, *GOOD])["repetition"]
    assert found.count == 1 and "of image 0" in found.text
    assert "with 121 of all 130 mentions: CHAIR_I is 96.9 with and 66.7 without" in found.text
    assert notes([endless + "end.", *GOOD * 100]).keys() == {"repetition"}  # no majority, and it moves CHAIR_I
    assert notes([endless + "end.", endless + "end.", *GOOD])["repetition"].count == 2
    long = "In it there are a dog, a cat, a horse, a cow and a bear. " * 4
    assert notes([long, *GOOD * 10]) == {}
    assert notes([long, "A dog.", "A dog is on the grass."])["repetition"].count == 1  # most mentions


def test_captions_that_end_within_a_sentence():
    cut = "A dog sits on a couch. There is a"
    assert notes([cut, *GOOD])["token-limit"].share == 25
    assert "--complete-sentences" in notes([cut])["token-limit"].text
    assert notes([cut, *GOOD * 4]) == {}
    assert notes([cut], ending=False) == {}
    assert notes(["a man riding a horse on the beach"] * 10) == {}  # one sentence that never had a period


def test_what_is_known_of_the_token_limit_goes_before_how_captions_end():
    def ended(*reasons):
        return look([{"image_id": n, "caption": GOOD[0], "finish_reason": r} for n, r in enumerate(reasons)])

    assert ended("eos", "eos") == []
    (found,) = ended("eos", "length")
    assert (found.kind, found.share) == ("token-limit", 50) and "At the token limit: 1 of 2" in found.text
    assert [note.share for note in ended(*["eos"] * 9, "length")] == [10] and ended(*["eos"] * 10, "length") == []


def test_what_was_cut():
    texts = ["A cat.</s>", r"- A dog\n- A cat", "A dog.", "A dog. A cat on"]
    found = {note.kind: note for note in look_at_cleaning(texts, Cleaning(complete_sentences=True))}
    assert {kind: note.count for kind, note in found.items()} == {"end-marks": 1, "line-breaks": 1, "sentences": 1}
    assert not any(note.is_warning or "--as-written" in note.text for note in found.values())
    assert "--as-written leaves" in look_at_cleaning(texts, Cleaning(), options=True)[0].text
    left = {note.kind: note for note in look_at_cleaning(texts, Cleaning(as_written=True))}
    assert list(left) == ["end-marks-left", "line-breaks-left"]
    assert all("leave --as-written out" in note.text and note.is_warning for note in left.values())


def test_what_was_asked_for():
    assert look_at_request(5, 5, False) == []
    assert [(note.kind, note.count) for note in look_at_request(5, 4, True)] == [("skipped", 1), ("instances-only", 4)]
