import json

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from kvtune.chair import build_ground_truth
from kvtune.coco import CocoFolder
from kvtune.demo import coco as demo_coco_module
from kvtune.demo import demo_coco
from kvtune.demo.scenes import render
from kvtune.errors import KvtuneError

SCENES = 24


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KVTUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        return demo_coco(SCENES)


@pytest.fixture(scope="module")
def instances(root):
    return COCO(str(root / "annotations" / "instances_val2014.json"))


@pytest.fixture(scope="module")
def captions(root):
    return COCO(str(root / "annotations" / "captions_val2014.json"))


def test_instances_are_those_of_the_scenes(instances):
    names = {category["id"]: category["name"] for category in instances.loadCats(instances.getCatIds())}
    assert sorted(instances.getImgIds()) == list(range(900_001, 900_001 + SCENES))
    for image_id in instances.getImgIds():
        scene = render(0, image_id)
        annotations = instances.loadAnns(instances.getAnnIds(imgIds=image_id))
        assert [names[a["category_id"]] for a in annotations] == [one.category for one in scene.objects]
        for index, (annotation, one) in enumerate(zip(annotations, scene.objects, strict=True), start=1):
            x, y, width, height = annotation["bbox"]
            assert (x, y, x + width, y + height) == one.box
            mask = instances.annToMask(annotation)
            assert np.array_equal(mask, scene.instances == index)
            assert annotation["area"] == mask.sum()


def test_five_captions_an_image_and_ids_are_unique(instances, captions):
    for image_id in captions.getImgIds():
        assert len(captions.getAnnIds(imgIds=image_id)) == 5
    for coco in (instances, captions):
        ids = [annotation["id"] for annotation in coco.dataset["annotations"]]
        assert len(ids) == len(set(ids))


def test_images_show_the_scenes(root, instances):
    for image in instances.loadImgs(instances.getImgIds()):
        assert image["file_name"] == f"COCO_val2014_{image['id']:012d}.jpg"
        with Image.open(root / "val2014" / image["file_name"]) as picture:
            assert picture.size == (image["width"], image["height"]) == (64, 64)
            pixels = np.asarray(picture.convert("RGB"), dtype=int)
        assert np.abs(pixels - render(0, image["id"]).pixels).mean() < 6  # JPEG


def test_the_common_loader_reads_it(root):
    folder = CocoFolder(root)
    ids = [900_001, 900_002, 900_003]
    categories, captions = folder.categories(ids), folder.captions(ids)
    for image_id in ids:
        assert set(categories[image_id]) == {one.category for one in render(0, image_id).objects}
        assert len(captions[image_id]) == 5
        assert folder.image_paths([image_id])[0].is_file()
    truth = build_ground_truth(categories, captions)
    assert truth == {i: {one.category for one in render(0, i).objects} for i in ids}


def test_second_call_renders_nothing_and_a_larger_set_begins_with_the_smaller(root, tmp_path, monkeypatch):
    monkeypatch.setenv("KVTUNE_CACHE", str(root.parent.parent))
    with monkeypatch.context() as patch:
        patch.setattr(demo_coco_module, "render", None)
        assert demo_coco(SCENES) == root
    larger = demo_coco(SCENES + 2)
    assert larger != root
    name = "instances_val2014.json"
    small, large = (json.loads((folder / "annotations" / name).read_text()) for folder in (root, larger))
    assert large["annotations"][: len(small["annotations"])] == small["annotations"]


def test_an_interrupted_rendering_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("KVTUNE_CACHE", str(tmp_path))

    def interrupted(seed, image_id):
        if image_id > 900_003:
            raise KeyboardInterrupt
        return render(seed, image_id)

    monkeypatch.setattr(demo_coco_module, "render", interrupted)
    with pytest.raises(KeyboardInterrupt):
        demo_coco(8)
    assert list((tmp_path / "demo").iterdir()) == []
    monkeypatch.undo()
    monkeypatch.setenv("KVTUNE_CACHE", str(tmp_path))
    assert demo_coco(8).is_dir()


def test_a_cache_that_cannot_be_written_is_one_line(tmp_path, monkeypatch):
    blocked = tmp_path / "file"
    blocked.write_text("")
    monkeypatch.setenv("KVTUNE_CACHE", str(blocked))
    with pytest.raises(KvtuneError, match="KVTUNE_CACHE"):
        demo_coco(2)
