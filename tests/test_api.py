"""The commands' work from Python: the same studies, scores and choices."""

import json
import pickle
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from scored_studies import scored_study

import kvtune
from kvtune.cli.main import main
from kvtune.coco import CocoFolder
from kvtune.demo import demo_coco
from kvtune.errors import RequestError


def printed(capsys, *arguments):
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments), "--json"])
    assert not ended.value.code
    return json.loads(capsys.readouterr().out)


def test_a_study_is_what_the_commands_show(tmp_path, capsys):
    folder = scored_study(tmp_path / "studies" / "mine", trials=8).path
    study = kvtune.load_study(folder)
    document = printed(capsys, "pareto", "mine", "--studies-dir", tmp_path / "studies")
    assert set(study.front["number"]) == set(document["front"])
    assert study.front["chair_s"].is_monotonic_increasing
    assert len(study.trials) == 1 + len(document["trials"])
    assert json.loads(json.dumps(study.document())) == {key: document[key] for key in study.document()}
    exported = printed(capsys, "export", "mine", "--studies-dir", tmp_path / "studies", "--select", "min-chair")
    assert study.preset("min-chair").parameters == exported["preset"]["parameters"]
    assert repr(study).startswith(f"Study({str(folder)!r}: kvsmooth on ") and len(repr(study)) < 300
    with pytest.raises(RequestError):
        kvtune.load_study(tmp_path / "none")


def test_captions_are_scored_from_records_and_files(tmp_path, capsys):
    captions = [{"image_id": 1, "caption": "A dog and a cat."}, {"image_id": 2, "caption": "A person."}]
    truth = {1: {"dog"}, 2: {"person"}}
    files = tmp_path / "captions.jsonl", tmp_path / "truth.json"
    files[0].write_text("\n".join(map(json.dumps, captions)))
    files[1].write_text(json.dumps({number: sorted(objects) for number, objects in truth.items()}))
    found = kvtune.score(captions, truth)
    assert found["chair_s"] == 50
    assert kvtune.score(*files) == found == kvtune.score(captions, json.loads(files[1].read_text()))
    assert printed(capsys, "score", files[0], "--ground-truth", files[1]) == json.loads(json.dumps(found))
    for wrong, says in (
        ({1: {"dog"}}, "image 2 has a caption but no ground truth"),
        ({1: {"dgo"}}, "is no COCO category"),
    ):
        with pytest.raises(RequestError, match=says):
            kvtune.score(captions, wrong)


@pytest.mark.parametrize(
    ("captions", "says"),
    [
        ([{"id": 1, "caption": "A dog."}], 'caption 1 has no "image_id"'),
        ([{"image_id": 1, "caption": None}], 'caption 1, "caption": text is expected, not nothing'),
        (["A dog."], "caption 1 is no object"),
        ([], "no captions to score"),
    ],
)
def test_wrong_records_are_refused_as_in_a_file(captions, says):
    with pytest.raises(RequestError, match=says):
        kvtune.score(captions, {1: {"dog"}})


def test_images_are_called_as_in_a_file():
    for image in (np.int64(1), "1", "COCO_val2014_000000000001.jpg"):
        assert kvtune.score([{"image_id": image, "caption": "A dog."}], {1: {"dog"}})["f1"] == 100


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ({"trials": "6"}, "--trials must be a whole number, not '6'"),
        ({"max_new_tokens": 2.5}, "--max-new-tokens must be a whole number, not 2.5"),
        ({"timeout": 60}, "--timeout 60 has no unit"),
        ({"min_f1": 101}, "F1 is at most 100"),
        ({"enqueue": "lambda_ref=0.5"}, "enqueue takes a list of settings, not 'lambda_ref=0.5'"),
    ],
)
def test_a_wrong_search_from_python_is_refused(tmp_path, option, says):
    with pytest.raises(RequestError, match=says):
        kvtune.search("demo", studies_dir=tmp_path, **option)


def test_a_wrong_search_is_refused(tmp_path):
    with pytest.raises(RequestError, match="search has no option 'trails'; it has method, space, trials"):
        kvtune.search("demo", trails=3)
    with pytest.raises(RequestError, match="unknown method"):
        kvtune.search("demo", method="nosuch", studies_dir=tmp_path)


def test_the_function_has_the_name_of_its_package():
    code = "import kvtune, kvtune.search.session; assert callable(kvtune.search), kvtune.search"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    from kvtune.search.search_options import SearchOptions

    assert pickle.loads(pickle.dumps(SearchOptions)) is SearchOptions


def test_images_are_captioned_as_they_are_pulled(tmp_path, capsys, monkeypatch):
    folder = CocoFolder(demo_coco())
    paths = folder.image_paths(folder.image_ids("val2014")[:3])
    document = printed(capsys, "caption", *paths, "--model", "demo", "--max-new-tokens", "25")
    shown = {each["image"]: each["captions"]["preset"] for each in document["images"]}
    broken = tmp_path / "broken.jpg"
    broken.write_text("no image")
    given = [str(paths[0]), paths[1], broken, Image.open(paths[2])]
    captions = kvtune.caption(iter(given), model="demo", max_new_tokens=25, skip_broken=True)
    found = {id(each.image): each for each in captions}
    assert len(found) == 3
    for path, image in zip(paths, [given[0], given[1], given[3]], strict=True):
        expected = shown[str(path)]
        each = found[id(image)]
        assert (each.text, each.finish_reason) == (expected["caption"], expected["finish_reason"])
        assert len(each.token_ids) == expected["tokens"]
    monkeypatch.setenv("HOME", str(tmp_path))
    for images in (["~/broken.jpg"], "~/broken.jpg"):
        with pytest.raises(RequestError, match=rf"{broken} cannot be read: not an image"):
            list(kvtune.caption(images, model="demo"))
    with pytest.raises(RequestError, match="there is no preset 'nosuch'"):
        kvtune.caption(broken, model="demo", preset="nosuch")
