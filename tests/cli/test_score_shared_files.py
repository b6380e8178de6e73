"""``kvtune score`` and ``models check`` on files that they once answered badly: the right values of each."""

import json
import re
from pathlib import Path

import pytest

from kvtune.cli.main import main


@pytest.fixture(scope="module")
def faults(shared_data):
    folder = shared_data / "faults"
    if not folder.is_dir():
        pytest.skip(f"files are not there: {folder}")
    return folder


@pytest.fixture
def score(faults, capsys):
    """Exit code, document and notes by kind, or the one line of a refusal."""

    def score(name, *options, truth="gt3.json"):
        where = () if "--coco" in options else ("--ground-truth", str(faults / truth))
        with pytest.raises(SystemExit) as ended:
            main(["score", str(faults / name), *where, *map(str, options), "--json"])
        printed = capsys.readouterr()
        if ended.value.code:
            assert (ended.value.code, printed.out, printed.err.count("\n")) == (2, "", 1)
            return printed.err
        document = json.loads(printed.out)
        return document, {note["kind"]: note for note in document["notes"]}

    return score


def test_every_row_is_tried(faults):
    """A file that is new there needs its right value here, or in the tests of models."""
    rows = [line.split("|")[1] for line in (faults / "README.md").read_text().splitlines() if line.startswith("| `")]
    named = {name for row in rows for name in re.findall(r"`([\w./]+)`", row)}
    tried = Path(__file__).read_text()
    assert len(named) > 25 and {name for name in named if f'"{name}' not in tried} == set()


def test_end_marks(score):
    clean, none = score("eos_clean.jsonl")
    marked, notes = score("eos.jsonl")
    assert clean["chair_s"] == 100 and none == {} and list(notes) == ["end-marks"]
    assert {**marked, "notes": []} == clean
    assert score("eos.jsonl", "--as-written")[0]["chair_s"] == 0


def test_a_field_without_objects(score):
    document, notes = score("ids_as_captions.json")
    assert document["chair_s"] == 0 and notes["no-objects"]["share"] == 100
    assert "image_id, caption" in notes["no-objects"]["text"]


@pytest.mark.parametrize(("name", "kind"), [("empty_captions.jsonl", "empty"), ("sorry.jsonl", "refusals")])
def test_captions_that_describe_nothing(score, name, kind):
    _, notes = score(name)
    assert notes[kind]["count"] == 2 and notes[kind]["share"] == pytest.approx(200 / 3)


@pytest.mark.parametrize(
    ("name", "kind", "end"),
    [("think.jsonl", "reasoning", "</think>"), ("prompt_repeated.jsonl", "question", "ASSISTANT:")],
)
def test_more_than_the_answer(score, name, kind, end):
    document, notes = score(name)
    assert document["chair_s"] == 100 and f"--answer-after '{end}'" in notes[kind]["text"]
    document, notes = score(name, "--answer-after", end)
    assert document["chair_s"] == 0 and notes == {}


def test_one_caption_that_decides_chair_i(score):
    _, notes = score("degenerate.jsonl")
    assert notes["repetition"]["count"] == 1 and "image 42" in notes["repetition"]["text"]


def test_literal_line_breaks(score):
    document, notes = score("literal_n.jsonl")
    assert list(notes) == ["line-breaks"] and document["chair_i"] == pytest.approx(200 / 3)


@pytest.mark.parametrize(
    "name",
    [
        "pretty.jsonl", "bom.jsonl", "bom.json", "id2cap.json", "id2caplist.json", "coco_res_dict.json",
        "float_ids.jsonl", "stem_ids.jsonl",
    ],
)  # fmt: skip
def test_layouts(score, name):
    document, notes = score(name)
    assert (document["captions"], document["chair_s"], notes) == (3, 100, {})
    assert document["recall"] == pytest.approx(400 / 6)


def test_lines_in_a_file_that_ends_as_json(score, faults, tmp_path):
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps({"350289": ["surfboard"], "110027": ["chair"], "487421": ["broccoli"]}))
    document, notes = score("halc_lines.json", truth=truth)
    assert document["captions"] == 3 and list(notes) == ["token-limit"]


def test_lmms_eval(score):
    options = ("--image-key", "doc.question_id", "--caption-key", "filtered_resps")
    assert " ".join(options) in score("lmms_eval.jsonl")
    assert score("lmms_eval.jsonl", *options)[0]["chair_s"] == 100


def test_one_image_under_two_keys(score):
    assert "'42' and 'COCO_val2014_000000000042.jpg' are one image" in score("bom.jsonl", truth="gt_dupkeys.json")


def test_truth_of_coco(score, faults):
    document, _ = score("coco4.jsonl", "--coco", faults / "coco_ok")
    assert document["recall"] == pytest.approx(13.04, abs=0.01)


@pytest.mark.parametrize(
    ("folder", "missing"),
    [
        ("coco_zerocaps", "no reference caption in captions_val2017.json"),
        ("coco_zeroinst", "4 of 4 images have no instance in instances_val2017.json"),
        ("coco_nocaps", "has no captions_val2017.json"),
        ("coco_noinst", "has no instances_val2017.json"),
    ],
)
def test_half_a_truth(score, faults, folder, missing):
    line = score("coco4.jsonl", "--coco", faults / folder)
    assert missing in line and ("--instances-only" in line) == folder.endswith("caps")
    if folder.endswith("caps"):
        document, notes = score("coco4.jsonl", "--coco", faults / folder, "--instances-only")
        assert document["recall"] == pytest.approx(14.29, abs=0.01) and list(notes) == ["instances-only"]


@pytest.mark.parametrize(
    ("folder", "line"),
    [
        ("models/full", "the processor and the weights of full do not fit each other: Image features and image tokens"),
        ("models/notok", "/models/notok as LLaVA-1.5: it has no tokenizer (tokenizer.json or tokenizer.model); copy"),
    ],
)
def test_models_that_do_not_fit(faults, capsys, folder, line):
    with pytest.raises(SystemExit) as ended:
        main(["models", "check", str(faults / folder), "--device", "cpu"])
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out, printed.err.count("\n")) == (2, "", 1) and line in printed.err


def test_opera_rule_for_64_tokens(score, shared_data, tmp_path):
    """Captions cut after 48 words, which is about 64 tokens, and what is left of them in whole sentences."""
    chair = shared_data / "chair"
    lines = [json.loads(line) for line in (chair / "llava15_greedy_captions.jsonl").read_text().splitlines()]
    path = tmp_path / "at64.json"
    path.write_text(json.dumps([{**line, "caption": " ".join(line["caption"].split()[:48])} for line in lines]))
    document, notes = score(path, truth=chair / "ground_truth_500.json")
    assert notes["token-limit"]["count"] == 457 and document["chair_s"] == pytest.approx(18.8)
    whole, notes = score(path, "--complete-sentences", truth=chair / "ground_truth_500.json")
    assert list(notes) == ["sentences"] and whole["chair_s"] == pytest.approx(13.4)
