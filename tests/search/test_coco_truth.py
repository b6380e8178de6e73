"""Ground truth from COCO's annotations: whole or refused."""

import json
import logging

import pytest
from small_coco import write_coco

from kvtune.coco import CocoFolder
from kvtune.coco.truth import coco_truth
from kvtune.errors import RequestError


@pytest.fixture
def root(tmp_path):
    return write_coco(tmp_path / "coco", "val2014", range(1, 41))


def without(root, kind, image_ids):
    """Take the annotations of some images out of a file."""
    path = root / "annotations" / f"{kind}_val2014.json"
    document = json.loads(path.read_text())
    document["annotations"] = [each for each in document["annotations"] if each["image_id"] not in image_ids]
    path.write_text(json.dumps(document))
    return CocoFolder(root)


def test_both_kinds_make_the_truth(root):
    path = root / "annotations" / "captions_val2014.json"
    path.write_text(path.read_text().replace("Caption 0 of 1.", "A cat."))
    assert coco_truth(CocoFolder(root), [1, 2, 5]) == {1: {"person", "cat"}, 2: {"person", "dog"}, 5: set()}
    assert coco_truth(CocoFolder(root), [1, 2], instances_only=True) == {1: {"person"}, 2: {"person", "dog"}}


def test_a_few_images_without_instances_are_usual(root, caplog):
    assert coco_truth(CocoFolder(root), [5]) == {5: set()}
    assert coco_truth(CocoFolder(root), [5, 10]) == {5: set(), 10: set()}
    assert not caplog.records
    coco_truth(CocoFolder(root), range(1, 41))  # 8 of 40
    assert "8 of 40 images have no instance in instances_val2014.json of " in caplog.text
    assert caplog.records[0].levelno == logging.WARNING


def test_none_of_the_images_has_instances(root):
    with pytest.raises(RequestError, match=r"3 of 3 images have no instance in instances_val2014.json of .*download"):
        coco_truth(CocoFolder(root), [5, 10, 15], instances_only=True)
    with pytest.raises(RequestError, match="1 of 1 images have no instance"):
        coco_truth(without(root, "instances", range(99)), [1])


def test_most_of_the_images_have_no_instances(root):
    folder = without(root, "instances", range(1, 25))
    with pytest.raises(RequestError, match="28 of 40 images have no instance"):
        coco_truth(folder, range(1, 41))
    assert len(coco_truth(folder, range(21, 41))) == 20


def test_one_image_without_reference_captions_is_half_a_truth(root):
    folder = without(root, "captions", [7])
    with pytest.raises(
        RequestError, match=r"1 of 3 images have no reference caption in captions_val2014.json"
    ) as caught:
        coco_truth(folder, [6, 7, 8])
    assert "--instances-only" not in str(caught.value)  # the command has no such option
    with pytest.raises(RequestError, match="--instances-only"):
        coco_truth(folder, [6, 7, 8], instances_only=False)
    assert coco_truth(folder, [7], instances_only=True) == {7: {"person"}}
    assert coco_truth(folder, [6, 8]).keys() == {6, 8}


def test_one_file_alone_of_another_split(root, tmp_path):
    write_coco(root, "val2017", [50, 51])
    (root / "annotations" / "captions_val2017.json").unlink()
    assert coco_truth(CocoFolder(root), [1, 2]).keys() == {1, 2}
    with pytest.raises(RequestError, match=r"has no captions_val2017\.json, which image 50 needs; .*--source val2017"):
        coco_truth(CocoFolder(root), [1, 50])
