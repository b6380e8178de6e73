"""Real COCO through the loader, both namings and layouts, and what is wrong with a folder in one line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from kvtune.coco import CocoFolder, find_coco
from kvtune.coco import folder as folder_module
from kvtune.errors import RequestError


def test_real_coco_equals_a_plain_reading_of_its_json(shared_data):
    root = shared_data / "coco-mini"
    folder = CocoFolder(root)
    assert folder.sources == ["val2017", "train2017"]
    for source, number in (("val2017", 79), ("train2017", 80)):
        instances = json.loads((root / "annotations" / f"instances_{source}.json").read_text())
        captions = json.loads((root / "annotations" / f"captions_{source}.json").read_text())
        names = {category["id"]: category["name"] for category in instances["categories"]}
        assert len(names) == 80
        ids = sorted(image["id"] for image in instances["images"])
        assert folder.image_ids(source) == ids
        assert len(ids) == number
        categories = {i: {names[a["category_id"]] for a in instances["annotations"] if a["image_id"] == i} for i in ids}
        assert folder.categories(ids) == categories
        texts = {i: [a["caption"] for a in captions["annotations"] if a["image_id"] == i] for i in ids}
        assert folder.captions(ids) == texts
        assert [path.name for path in folder.image_paths(ids)] == [f"{i:012d}.jpg" for i in ids]
        assert all(path.is_file() for path in folder.image_paths(ids))


@pytest.mark.parametrize("layout", ["nested", "flat", "images"])
@pytest.mark.parametrize("source", ["val2014", "train2014", "val2017", "train2017"])
def test_every_naming_and_layout(make_coco, source, layout):
    folder = CocoFolder(make_coco(source, [9, 4, 5], layout))
    assert folder.sources == [source]
    assert folder.image_ids(source) == [4, 5, 9]
    assert folder.categories([9, 4, 5]) == {9: {"person"}, 4: {"person", "dog"}, 5: set()}
    assert list(folder.categories([9, 4, 5])) == [9, 4, 5]
    assert folder.captions([5]) == {5: [f"Caption {k} of 5." for k in range(5)]}
    prefix = f"COCO_{source}_" if "2014" in source else ""
    assert folder.image_paths([9])[0].name == f"{prefix}000000000009.jpg"
    assert folder.image_paths([9])[0].is_file()


def test_ids_come_from_any_split(make_coco):
    root = make_coco("val2014", [1, 2])
    make_coco("train2014", [3, 4], root=root)
    make_coco("val2017", [2, 6], layout="flat", root=root)
    folder = CocoFolder(root)
    assert folder.sources == ["val2014", "val2017", "train2014"]
    assert folder.categories([4, 1, 6]) == {4: {"person", "dog"}, 1: {"person"}, 6: {"person", "dog"}}
    assert folder.captions([6])[6][0] == "Caption 0 of 6."
    assert folder.image_paths([2])[0].name == "COCO_val2014_000000000002.jpg"
    assert folder.image_paths([6])[0].name == "000000000006.jpg"


def test_images_of_another_year_than_the_annotations(make_coco):
    root = make_coco("val2014", [1, 2])
    (root / "val2014").rename(root / "val2017")
    for path in list((root / "val2017").iterdir()):
        path.rename(path.with_name(path.name.removeprefix("COCO_val2014_")))
    assert CocoFolder(root).image_paths([2])[0] == root / "val2017" / "000000000002.jpg"


def test_file_names_of_its_own(make_coco):
    root = make_coco("val2014", [7])
    captions = root / "annotations" / "captions_val2014.json"
    captions.write_text(captions.read_text().replace("COCO_val2014_000000000007.jpg", "scene-7.png"))
    (root / "val2014" / "COCO_val2014_000000000007.jpg").rename(root / "val2014" / "scene-7.png")
    assert CocoFolder(root).image_paths([7])[0].name == "scene-7.png"


def test_reads_only_what_is_needed_and_once(make_coco, monkeypatch):
    root = make_coco("val2014", [1, 2])
    make_coco("train2014", [3], root=root)
    read = []
    real = folder_module.read_annotations
    monkeypatch.setattr(
        folder_module, "read_annotations", lambda path, *rest: read.append(path.name) or real(path, *rest)
    )
    folder = CocoFolder(root)
    folder.image_paths([1])
    assert read == []
    for _ in range(2):
        folder.image_ids("val2014")
        folder.captions([1])
    assert read == ["captions_val2014.json"]
    for _ in range(2):
        folder.categories([1, 2])
    assert read == ["captions_val2014.json", "instances_val2014.json"]


def test_prints_nothing_and_loads_no_torch(make_coco):
    root = make_coco("val2017", [1])
    code = (
        "import sys; from kvtune.coco import CocoFolder; "
        f"CocoFolder({str(root)!r}).categories([1]); assert 'torch' not in sys.modules"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout == run.stderr == ""


def test_one_kind_is_enough_for_what_it_says(make_coco):
    root = make_coco("val2014", [1, 2])
    (root / "annotations" / "captions_val2014.json").unlink()
    folder = CocoFolder(root)
    assert folder.image_ids("val2014") == [1, 2]
    assert folder.categories([1]) == {1: {"person"}}
    with pytest.raises(RequestError, match=r"no captions_val2014.json, which image 1 needs; .*kvtune data download"):
        folder.captions([1])


def test_unknown_id_and_split(make_coco):
    folder = CocoFolder(make_coco("val2014", [1, 2]))
    for ask in (folder.categories, folder.captions, folder.image_paths):
        with pytest.raises(RequestError, match=r"image 77 is not in .*val2014.*kvtune data download --to "):
            ask([1, 77])
    with pytest.raises(RequestError, match=r"no annotations of 'val2017', only of val2014.*--source val2017"):
        folder.image_ids("val2017")


def test_missing_image_files(make_coco):
    root = make_coco("val2014", [1, 2, 3])
    (root / "val2014" / "COCO_val2014_000000000002.jpg").unlink()
    folder = CocoFolder(root)
    with pytest.raises(RequestError) as error:
        folder.image_paths([1, 2, 3], "--subset mine.json")
    assert "1 of 3 images are missing" in str(error.value)
    assert "first: 2, COCO_val2014_000000000002.jpg of val2014" in str(error.value)
    assert str(error.value).endswith(f"kvtune data download --to {root} --subset mine.json")


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[]",
        lambda text: "{}",
        lambda text: "null",
        lambda text: '{"images": [], "annotations": []}',
        lambda text: text.replace('"image_id"', '"image"'),
        lambda text: text.replace('"category_id": 1,', '"category_id": 999,').replace(
            '"category_id": 1}', '"category_id": 999}'
        ),
        lambda text: text.replace('"file_name"', '"path"'),
        lambda text: text.replace('"categories"', '"classes"'),
        lambda text: text.replace('"name": "person"', '"name": ["person"]'),
        lambda text: text.replace('"id": 1,', '"id": Infinity,', 1),
        lambda text: text.replace('"image_id": 1', '"image_id": "²"', 1),
        lambda text: text.replace('"image_id": 1', '"image_id": true', 1),
        lambda text: text.replace('"image_id": 1', '"image_id": ' + "9" * 5000, 1),
        lambda text: "[" * 100_000,
        lambda text: '{"images": [null], "annotations": [], "categories": []}',
        lambda text: '{"images": {"1": {}}, "annotations": [], "categories": []}',
    ],
    ids=[
        "half",
        "empty",
        "list",
        "object",
        "null",
        "no images",
        "no image_id",
        "category",
        "no file_name",
        "no categories",
        "category without a name",
        "infinite id",
        "superscript id",
        "id that is true",
        "5,000 digits",
        "deep",
        "null image",
        "images by id",
    ],
)
def test_damaged_annotations(make_coco, damage):
    root = make_coco("val2014", [1, 2])
    path = root / "annotations" / "instances_val2014.json"
    damaged = damage(path.read_text())
    assert damaged != path.read_text()
    path.write_text(damaged)
    with pytest.raises(RequestError) as error:
        CocoFolder(root).categories([1])
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
    assert f"kvtune data download --to {root}" in str(error.value)


def test_captions_that_are_no_text(make_coco):
    root = make_coco("val2014", [1])
    path = root / "annotations" / "captions_val2014.json"
    path.write_text(path.read_text().replace('"Caption 0 of 1."', "null"))
    with pytest.raises(RequestError, match=r"is not a COCO captions file \(an entry has no text 'caption'\)"):
        CocoFolder(root).captions([1])


def test_a_byte_order_mark(make_coco):
    root = make_coco("val2014", [1])
    path = root / "annotations" / "captions_val2014.json"
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert len(CocoFolder(root).captions([1])[1]) == 5


def test_bytes_that_are_no_text(make_coco):
    root = make_coco("val2014", [1])
    (root / "annotations" / "captions_val2014.json").write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(RequestError, match=r"captions_val2014.json is not UTF-8 text .*kvtune data download"):
        CocoFolder(root).captions([1])


def test_folder_without_coco(tmp_path):
    with pytest.raises(RequestError, match=r"no COCO annotations .*kvtune data download --to "):
        CocoFolder(tmp_path)
    with pytest.raises(RequestError, match=r"nowhere does not exist; .*kvtune data download --to .*nowhere"):
        CocoFolder(tmp_path / "nowhere")
    (tmp_path / "file").write_text("")
    with pytest.raises(RequestError, match=r"file is not a folder; name one with --coco or \$KVTUNE_COCO$"):
        CocoFolder(tmp_path / "file")


def test_where_coco_is_looked_for(tmp_path, monkeypatch):
    named, environment, home = tmp_path / "named", tmp_path / "environment", tmp_path / "home"
    default = home / ".cache" / "kvtune" / "coco"
    for path in (named, environment, default):
        path.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("KVTUNE_COCO", str(environment))
    assert find_coco(named) == named
    assert find_coco(None) == environment
    for nobody in ("~nobody-of-this-name/x", Path("~nobody-of-this-name/x")):
        with pytest.raises(RequestError, match="does not exist"):
            find_coco(nobody)
    monkeypatch.setenv("KVTUNE_COCO", "~nobody-of-this-name/x")
    with pytest.raises(RequestError, match="does not exist"):
        find_coco(None)
    monkeypatch.delenv("KVTUNE_COCO")
    assert find_coco(None) == default
    default.rmdir()
    with pytest.raises(RequestError) as error:
        find_coco(None)
    assert str(error.value).endswith(f"kvtune data download --to {default}")


def test_download_command_survives_a_shell():
    from kvtune.coco import download_command

    assert download_command(Path("/data/my coco"), "--subset opera500") == (
        "kvtune data download --to '/data/my coco' --subset opera500"
    )
