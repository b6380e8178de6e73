"""Damaged annotation files: reading them ends in annotations or in one line that names the file and the cure."""

import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvtune.coco.annotations import read_annotations
from kvtune.errors import RequestError

DOCUMENTS = {
    "instances": {
        "images": [{"id": 1, "file_name": "1.jpg"}, {"id": 2, "file_name": "2.jpg"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 18}, {"id": 2, "image_id": 1, "category_id": 1}],
        "categories": [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}],
    },
    "captions": {
        "images": [{"id": 1, "file_name": "1.jpg"}],
        "annotations": [{"id": 1, "image_id": 1, "caption": "A dog."}],
    },
}
LABELS = {"instances": {1: ["dog", "person"]}, "captions": {1: ["A dog."]}}
VALUES = [None, True, -1, 2.5, 10**30, float("inf"), float("nan"), "", "²", "1", "\ud800", [], {}, [[]], {"a": []}, [1]]
DAMAGES = [*'"{}[],:\\²\0\n', "\\ud800", "null", "1e999", "NaN", "9" * 5000, "[" * 5000]


def places(value, path=()):
    """Paths to every value of a document."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, each in inner:
        yield from places(each, (*path, key))


def read(text, kind):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.json"
        path.write_text(text, encoding="utf-8")
        try:
            found = read_annotations(path, kind, Path(folder))
        except RequestError as error:
            line = str(error)
            assert str(path) in line and "kvtune data download" in line and "\n" not in line and len(line) < 500
        else:
            assert all(isinstance(image, int) and isinstance(name, str) for image, name in found.file_names.items())
            json.dumps(found.labels, ensure_ascii=False).encode()


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_whole_documents(tmp_path, kind):
    path = tmp_path / "file.json"
    path.write_text(json.dumps(DOCUMENTS[kind]))
    assert read_annotations(path, kind, tmp_path).labels == LABELS[kind]


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_a_wrong_value_anywhere(kind):
    for place in places(DOCUMENTS[kind]):
        for value in VALUES:
            document = json.loads(json.dumps(DOCUMENTS[kind]))
            if not place:
                document = value
            else:
                *parents, last = place
                inner = document
                for key in parents:
                    inner = inner[key]
                inner[last] = value
            read(json.dumps(document), kind)


@given(st.sampled_from([*DOCUMENTS]), st.data())
@settings(max_examples=200, deadline=None)
def test_damaged_text(kind, data):
    text = json.dumps(DOCUMENTS[kind])
    at = data.draw(st.integers(0, len(text)))
    read(text[:at] + data.draw(st.sampled_from(DAMAGES)) + text[at + data.draw(st.integers(0, 9)) :], kind)
