"""``kvtune score`` and ``kvtune bench score`` as their users run them."""

import json
import subprocess
import sys

import pytest
from small_coco import write_coco

from kvtune.chair import ChairScorer, read_captions
from kvtune.cli.main import main
from kvtune.statistics.bootstrap import Bootstrap

CAPTIONS = [
    {"image_id": "COCO_val2014_000000000001.jpg", "caption": "A dog beside a bicycle."},
    {"image_id": 2, "caption": "A man."},
]
TRUTH = {"1": ["dog"], "2": ["person", "cat"], "3": ["tv"]}


@pytest.fixture
def files(tmp_path):
    captions, truth = tmp_path / "captions.jsonl", tmp_path / "truth.json"
    captions.write_text("".join(json.dumps(each) + "\n" for each in CAPTIONS))
    truth.write_text(json.dumps(TRUTH))
    return captions, truth


def run(capsys, *arguments):
    """Exit code, stdout and stderr of a command."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    printed = capsys.readouterr()
    return caught.value.code or 0, printed.out, printed.err


def refused(result, *texts):
    code, out, err = result
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert all(text in err for text in texts), err


def test_json_is_one_document(files):
    captions, truth = files
    command = [sys.executable, "-m", "kvtune.cli.main", "score", captions, "--ground-truth", truth, "--json"]
    found = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=60)
    assert found.returncode == 0, found.stderr
    score = json.loads(found.stdout)
    assert list(score) == [
        "chair_s", "chair_i", "precision", "recall", "f1", "captions", "mean_words", "scorer", "intervals", "notes",
    ]  # fmt: skip
    assert score["intervals"]["chair_s"] == pytest.approx([9.45, 90.55], abs=0.01) and score["notes"] == []
    assert (score["chair_s"], score["precision"], score["recall"]) == (
        50,
        pytest.approx(200 / 3),
        pytest.approx(200 / 3),
    )
    assert found.stderr == ""


def test_table(files, capsys):
    captions, truth = files
    code, out, err = run(capsys, "score", captions, "--ground-truth", truth)
    assert (code, err) == (0, "")
    rows = {line.split()[0]: line.split()[1] for line in out.splitlines()}
    assert rows["CHAIR_S"] == "50.00"
    assert rows["F1"] == "66.67"
    assert rows["captions"] == "2"
    assert "of 2 images" in out


def test_details(files, capsys, tmp_path):
    captions, truth = files
    path = tmp_path / "out" / "details.jsonl"
    code, out, _ = run(capsys, "score", captions, "--ground-truth", truth, "--details", path, "--json")
    assert code == 0
    assert json.loads(out)["captions"] == 2
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert lines[0] == {
        "image_id": 1, "mentioned": ["dog", "bicycle"], "hallucinated": ["bicycle"], "correct": ["dog"], "missed": [],
        "words": 6, "denied": [],
    }  # fmt: skip
    assert lines[1]["missed"] == ["cat"]


def test_against_coco(capsys, tmp_path):
    coco = write_coco(tmp_path / "coco", "val2014", [1, 2])
    captions = tmp_path / "captions.json"
    captions.write_text(json.dumps(CAPTIONS))
    code, out, _ = run(capsys, "score", captions, "--coco", coco, "--json")
    assert code == 0
    assert json.loads(out)["captions"] == 2


def test_other_keys(files, capsys, tmp_path):
    _, truth = files
    captions = tmp_path / "answers.json"
    captions.write_text(json.dumps([{"image": "000000000001.jpg", "text": "A dog."}]))
    arguments = ("--image-key", "image", "--caption-key", "text", "--json")
    code, out, _ = run(capsys, "score", captions, "--ground-truth", truth, *arguments)
    assert code == 0
    assert json.loads(out)["recall"] == 100
    refused(run(capsys, "score", captions, "--ground-truth", truth), "image_id", "--image-key")


def test_two_captions_of_one_image_are_warned_of(files, capsys):
    captions, truth = files
    captions.write_text(captions.read_text() + json.dumps({"image_id": 2, "caption": "a cat"}) + "\n")
    code, out, err = run(capsys, "score", captions, "--ground-truth", truth, "--json", "-q")
    assert code == 0
    assert json.loads(out)["captions"] == 3
    assert "warning: 3 captions of 2 images" in err


def test_images_without_ground_truth(files, capsys):
    captions, truth = files
    truth.write_text('{"3": ["tv"]}')
    message = f"2 of 2 captioned images have no ground truth in {truth} (first: 1)"
    refused(run(capsys, "score", captions, "--ground-truth", truth, "--json"), message)


def test_wrong_requests(files, capsys, tmp_path):
    captions, truth = files
    refused(run(capsys, "score", captions, "--ground-truth", truth, "--coco", tmp_path), "give one of them")
    refused(run(capsys, "score", captions, "--ground-truth", tmp_path / "no.json"), "no.json does not exist")
    refused(run(capsys, "score", captions, "--coco", tmp_path / "no"), "does not exist", "kvtune data download")
    refused(run(capsys, "score", tmp_path / "no.jsonl", "--ground-truth", truth), "no.jsonl does not exist")
    captions.write_text("")
    refused(run(capsys, "score", captions, "--ground-truth", truth), "holds no captions")
    captions.write_text('{"caption": "a dog"}\n')
    refused(run(capsys, "score", captions, "--ground-truth", truth), 'no "image_id"')
    truth.write_text('{"1": ["doge"]}')
    captions.write_text('{"image_id": 1, "caption": "a dog"}\n')
    refused(run(capsys, "score", captions, "--ground-truth", truth), "'doge' is no COCO category")


def test_images_that_coco_does_not_have(capsys, tmp_path):
    coco = write_coco(tmp_path / "coco", "val2014", [1])
    captions = tmp_path / "captions.json"
    captions.write_text(json.dumps(CAPTIONS))
    refused(run(capsys, "score", captions, "--coco", coco, "--json"), "2")


def test_details_that_cannot_be_written_are_refused_before_the_work(files, capsys, tmp_path):
    captions, truth = files
    (tmp_path / "file").write_text("")
    code, out, err = run(
        capsys, "score", captions, "--ground-truth", truth, "--details", tmp_path / "file" / "details.jsonl", "--json"
    )
    assert (code, out) == (2, "")
    assert str(tmp_path / "file") in err


def test_bench(capsys):
    code, out, _ = run(capsys, "bench", "score", "--captions", "200", "--json")
    assert code == 0
    assert json.loads(out)["captions"] == 200
    code, out, _ = run(capsys, "bench", "score", "--captions", "200")
    assert "captions a second of one core: 200 different captions" in out


def scored(capsys, captions, truth, *options):
    """The document of a captions file, and its notes by kind."""
    code, out, err = run(capsys, "score", captions, "--ground-truth", truth, *options, "--json")
    assert code == 0, err
    document = json.loads(out)
    warnings = [note["text"] for note in document["notes"] if f"warning: {note['text']}\n" in err]
    assert len(warnings) == err.count("\n")  # every line of stderr is a note of the document
    return document, {note["kind"]: note for note in document["notes"]}


@pytest.fixture
def write(tmp_path):
    """Write captions of images 1, 2, ... and their ground truth."""

    def write(*texts):
        captions, truth = tmp_path / "captions.jsonl", tmp_path / "truth.json"
        lines = [json.dumps({"image_id": image, "caption": text}) + "\n" for image, text in enumerate(texts, 1)]
        captions.write_text("".join(lines))
        truth.write_text(json.dumps({str(image): ["dog"] for image in range(1, len(texts) + 1)}))
        return captions, truth

    return write


def test_end_marks_are_cut_unless_asked_otherwise(write, capsys):
    files = write("The image features a cat.</s>", "A man next to a truck.<|im_end|>")
    document, notes = scored(capsys, *files)
    assert (document["chair_s"], list(notes)) == (100, ["end-marks"])
    document, notes = scored(capsys, *files, "--as-written")
    assert document["chair_s"] == 50 and "end-marks-left" in notes


def test_what_is_implausible_stands_below_the_table_and_in_json(write, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    captions, truth = write("1", "2", "3")
    code, out, err = run(capsys, "score", captions, "--ground-truth", truth)
    assert (code, err) == (0, "")
    assert "warning: No COCO object named: 3 of 3 captions (100 %)" in out
    assert "The file's fields: image_id," in out and max(map(len, out.splitlines())) <= 80
    document, notes = scored(capsys, captions, truth)
    assert document["chair_s"] == 0 and notes["no-objects"]["share"] == 100


def test_reasoning_and_question_are_cut_by_the_option_that_the_note_names(write, capsys):
    files = write("<think>Is it a cat?</think>A dog.", "A dog.")
    document, notes = scored(capsys, *files)
    assert document["chair_s"] == 50 and "--answer-after '</think>'" in notes["reasoning"]["text"]
    document, notes = scored(capsys, *files, "--answer-after", "</think>")
    assert (document["chair_s"], notes) == (0, {})


def test_complete_sentences(write, capsys):
    files = write("A dog. There is a cat", "A dog. It is")
    document, notes = scored(capsys, *files)
    assert (document["chair_s"], list(notes)) == (50, ["token-limit"])
    document, notes = scored(capsys, *files, "--complete-sentences")
    assert (document["chair_s"], list(notes), notes["sentences"]["count"]) == (0, ["sentences"], 2)


def test_intervals_are_those_of_studies(write, capsys):
    files = write(*["A dog.", "A cat.", "A dog and a cat.", "A cat, a dog."] * 5)
    document, _ = scored(capsys, *files)
    counts = ChairScorer({image: {"dog"} for image in range(1, 21)}).counts(read_captions(files[0]))
    expected = Bootstrap(counts.table[None]).intervals(0)
    assert document["intervals"] == {name: pytest.approx(list(bounds)) for name, bounds in expected.items()}
    code, out, _ = run(capsys, "score", files[0], "--ground-truth", files[1])
    assert code == 0 and "CHAIR_S    75.00  53.1-88.8" in out


def test_standard_input(write):
    captions, truth = write("A dog.")
    command = [sys.executable, "-m", "kvtune.cli.main", "score", "-", "--ground-truth", str(truth), "--json"]
    ran = subprocess.run(command, input=captions.read_text(), capture_output=True, text=True, timeout=60)
    assert (ran.returncode, json.loads(ran.stdout)["recall"]) == (0, 100), ran.stderr
    ran = subprocess.run(command, input="", capture_output=True, text=True, timeout=60)
    assert ran.returncode == 2 and ran.stderr.startswith("kvtune: captions of standard input")


def test_captions_of_unknown_images_are_left_out_by_request(write, capsys, tmp_path):
    captions, truth = write("A dog.", "A cat.")
    truth.write_text('{"1": ["dog"]}')
    refused(run(capsys, "score", captions, "--ground-truth", truth, "--json"), "(first: 2)", "--skip-unknown")
    document, notes = scored(capsys, captions, truth, "--skip-unknown")
    assert (document["captions"], notes["skipped"]["count"]) == (1, 1)
    truth.write_text('{"7": ["dog"]}')
    refused(run(capsys, "score", captions, "--ground-truth", truth, "--skip-unknown"), "2 of 2")
    coco = write_coco(tmp_path / "coco", "val2014", [1])
    refused(run(capsys, "score", captions, "--coco", coco), "image 2 is not in")
    code, out, _ = run(capsys, "score", captions, "--coco", coco, "--skip-unknown", "--json")
    assert code == 0 and json.loads(out)["captions"] == 1


def test_half_a_truth_is_refused_and_its_missing_file_named(write, capsys, tmp_path):
    captions, _ = write("A dog.", "A man.", "A man.")
    coco = write_coco(tmp_path / "coco", "val2017", [1, 2, 3])
    score = ("score", captions, "--coco", coco, "--json")
    assert run(capsys, *score)[0] == 0
    folder = coco / "annotations"
    captions_file, instances_file = folder / "captions_val2017.json", folder / "instances_val2017.json"
    both = captions_file.read_text(), instances_file.read_text()
    for path, kind in ((captions_file, "captions"), (instances_file, "instances")):
        document = json.loads(path.read_text())
        path.write_text(json.dumps({**document, "annotations": []}))
        refused(run(capsys, *score), f"{kind}_val2017.json", "kvtune data download")
        path.unlink()
        refused(run(capsys, *score), f"has no {kind}_val2017.json", "--source val2017")
        captions_file.write_text(both[0])
        instances_file.write_text(both[1])
    captions_file.unlink()
    refused(run(capsys, *score), "--instances-only")
    code, out, _ = run(capsys, *score, "--instances-only")
    assert code == 0 and [note["kind"] for note in json.loads(out)["notes"]] == ["instances-only"]
    refused(run(capsys, "score", captions, "--ground-truth", captions, "--instances-only"), "leave it or")


def test_a_layout_that_is_not_read_names_the_options_that_read_it(write, capsys):
    captions, truth = write("A dog.")
    captions.write_text(json.dumps({"doc_id": 0, "resps": [["A dog."]], "doc": {"question_id": "000000000001.jpg"}}))
    options = ("--image-key", "doc.question_id", "--caption-key", "resps")
    refused(run(capsys, "score", captions, "--ground-truth", truth), " ".join(options))
    assert scored(capsys, captions, truth, *options)[0]["recall"] == 100


def test_an_image_under_two_keys(write, capsys):
    captions, truth = write("A dog.")
    truth.write_text('{"1": ["dog"], "000000000001.jpg": ["cat"]}')
    refused(run(capsys, "score", captions, "--ground-truth", truth), "'1' and '000000000001.jpg' are one image")
    truth.write_text('{"1": ["dog"], "1": ["cat"]}')
    refused(run(capsys, "score", captions, "--ground-truth", truth), "has the key '1' twice")
