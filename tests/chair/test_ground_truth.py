"""Ground truth: built from annotations, written and read again."""

import json

import pytest

from kvtune.chair import build_ground_truth, load_ground_truth, save_ground_truth
from kvtune.errors import RequestError


def test_instances_and_reference_captions():
    truth = build_ground_truth(
        {1: {"dog"}, 2: set(), 3: {"tv"}},
        {1: ["A man walks his dog.", "Two bikes."], 2: ["A field."], 4: ["Hot dogs on a table"]},
    )
    assert truth == {1: {"dog", "person", "bicycle"}, 2: set(), 3: {"tv"}, 4: {"hot dog", "dining table"}}
    assert list(truth) == [1, 2, 3, 4]


def test_verbs_of_reference_captions_put_nothing_in_the_picture():
    assert build_ground_truth({}, {1: ["A dog tied to a pole", "someone skiing", "seated"]}) == {1: {"dog"}}


def test_written_and_read_again(tmp_path):
    truth = {42: {"person", "dog"}, 7: set(), 139: {"dining table"}}
    path = tmp_path / "new" / "truth.json"
    save_ground_truth(truth, path)
    assert load_ground_truth(path) == truth
    assert json.loads(path.read_text()) == {"7": [], "42": ["dog", "person"], "139": ["dining table"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"42": ["dog", "doge"]}', "image 42: 'doge' is no COCO category; did you mean 'dog'"),
        ('{"42": ["xyzzy"]}', "'xyzzy' is no COCO category; COCO's 80 category names"),
        ('{"42": [["dog"]]}', "image 42"),
        ('{"cat": ["dog"]}', "'cat' is no image id"),
        ('{"42": "dog"}', "image 42 needs a list of COCO categories, not 'dog'"),
        ('{"42": null}', "image 42 needs a list"),
        ('{"42": {"dog": 1}}', "image 42 needs a list"),
        ('{"42": [["dog", ["dog"]]]}', "image 42"),
        ('{"42": [null]}', "'None' is no COCO category"),
        ('{"42": ["\\ud800"]}', "is no COCO category"),
        ('{"²": ["dog"]}', "'²' is no image id"),
        ('{"42": ["dog"], "000000000042.jpg": ["cat"]}', "'42' and '000000000042.jpg' are one image"),
        ('{"42": ["dog"], "42": ["cat"]}', "has the key '42' twice"),
        ('{"images": [], "annotations": []}', "is an annotation file of COCO's; --coco takes the folder"),
        ("[]", "an object is expected"),
        ("{}", "holds no images"),
        ('{"42": ["dog"', "is not valid JSON"),
    ],
)
def test_files_that_are_none(tmp_path, text, message):
    path = tmp_path / "truth.json"
    path.write_text(text)
    with pytest.raises(RequestError, match=message) as caught:
        load_ground_truth(path)
    assert str(path) in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(RequestError, match="does not exist"):
        load_ground_truth(tmp_path / "truth.json")


@pytest.mark.parametrize(
    "text", ["[" * 10**5, '{"a":' * 10**5, '{"42": ' + "9" * 5000 + "}", '{"42": ["' + "x" * 10**6]
)
def test_files_too_deep_or_too_long(tmp_path, text):
    path = tmp_path / "truth.json"
    path.write_text(text)
    with pytest.raises(RequestError) as caught:
        load_ground_truth(path)
    assert str(path) in str(caught.value) and len(str(caught.value)) < 300


def test_a_byte_order_mark(tmp_path):
    path = tmp_path / "truth.json"
    path.write_text('{"42": ["dog"]}', encoding="utf-8-sig")
    assert load_ground_truth(path) == {42: {"dog"}}


def test_unknown_categories_of_instances():
    with pytest.raises(RequestError, match="instances: image 3: 'sofa' is no COCO category"):
        build_ground_truth({3: ["sofa"]}, {})
