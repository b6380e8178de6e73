"""``kvtune score`` and ``kvtune bench score`` as their users run them."""

import json
import subprocess
import sys

import pytest
from small_coco import write_coco

from kvtune.cli.main import main

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


def test_details_that_cannot_be_written_lose_no_score(files, capsys, tmp_path):
    captions, truth = files
    (tmp_path / "file").write_text("")
    code, out, err = run(
        capsys, "score", captions, "--ground-truth", truth, "--details", tmp_path / "file" / "details.jsonl", "--json"
    )
    assert code == 1
    assert json.loads(out)["captions"] == 2
    assert "cannot write" in err


def test_bench(capsys):
    code, out, _ = run(capsys, "bench", "score", "--captions", "200", "--json")
    assert code == 0
    assert json.loads(out)["captions"] == 200
    code, out, _ = run(capsys, "bench", "score", "--captions", "200")
    assert "captions a second of one core: 200 different captions" in out
