"""Captions files and image ids."""

import json

import pytest

from kvtune.chair import parse_image_id, read_captions
from kvtune.errors import RequestError

CAPTIONS = [{"image_id": 42, "caption": "A dog."}, {"image_id": 7, "caption": 'Ein "Hündchen"\n'}]


@pytest.mark.parametrize(
    "value",
    [
        226988, "226988", " 226988 ", "000000226988", "COCO_val2014_000000226988.jpg", "000000226988.jpg",
        "val2017/000000226988.jpg", "/data/coco/train2014/COCO_train2014_000000226988.JPG",
        "C:\\coco\\000000226988.png",
    ],
)  # fmt: skip
def test_image_ids(value):
    assert parse_image_id(value) == 226988


@pytest.mark.parametrize(
    "value", ["", "dog", "dog.jpg", "42.5", 42.0, -1, "-1", True, None, [42], "²", "٤٢", "9" * 19, 10**18, "42.jpg.txt"]
)
def test_what_is_no_image_id(value):
    with pytest.raises(ValueError, match="is no image id"):
        parse_image_id(value)


def test_json_and_lines(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(CAPTIONS))
    (tmp_path / "a.jsonl").write_text("\n\n".join(map(json.dumps, CAPTIONS)) + "\n")
    assert read_captions(tmp_path / "a.json") == read_captions(tmp_path / "a.jsonl") == CAPTIONS


def test_other_keys(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps({"image": "COCO_val2014_000000000042.jpg", "text": "A dog.", "model_id": "x"}))
    assert read_captions(path, "image", "text") == [{"image_id": 42, "caption": "A dog."}]


def test_lines_end_at_line_feeds_only(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"image_id": 1, "caption": "a\u2028b\u0085c"}, ensure_ascii=False), encoding="utf-8")
    assert read_captions(path)[0]["caption"] == "a\u2028b\u0085c"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "[]", "holds no captions"),
        ("a.jsonl", "\n", "holds no captions"),
        ("a.jsonl", "", "holds no captions"),
        ("a.json", '{"42": "a dog"}', "holds an object; a list of captions is expected"),
        ("a.json", '[{"image_id": 1, "caption"', "is not valid JSON"),
        ("a.jsonl", '{"image_id": 1, "caption": "a"}\n{"image_id": 2, "cap', "line 2 is not JSON"),
        ("a.json", '[{"caption": "a"}]', 'caption 1 has no "image_id" .its keys: caption.; --image-key'),
        ("a.json", '[{"image_id": 1, "text": "a"}]', 'has no "caption" .its keys: image_id, text.; --caption-key'),
        ("a.json", "[{}]", "its keys: none"),
        ("a.json", "[42]", "caption 1 is no object"),
        ("a.json", '[{"image_id": 1, "caption": 5}]', "text is expected, not a number"),
        ("a.json", '[{"image_id": 1, "caption": ["a"]}]', "text is expected, not a list"),
        ("a.json", '[{"image_id": "dog.jpg", "caption": "a"}]', "'dog.jpg' is no image id"),
        ("a.json", '[{"image_id": null, "caption": "a"}]', "None is no image id"),
        ("a.json", '[{"image_id": -5, "caption": "a"}]', "-5 is no image id"),
        ("a.csv", "1,a dog", "neither .json nor .jsonl"),
    ],
)
def test_files_that_cannot_be_scored(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(RequestError, match=message) as caught:
        read_captions(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_files_that_cannot_be_read(tmp_path, name):
    path = tmp_path / name
    with pytest.raises(RequestError, match="does not exist"):
        read_captions(path)
    path.write_bytes(b"\xff\xfe[]")
    with pytest.raises(RequestError, match=r"not UTF-8|not valid JSON"):
        read_captions(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(RequestError, match="cannot be read"):
        read_captions(path)
