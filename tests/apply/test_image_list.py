"""Images, folders and lists become images with names that captions, and ``kvtune score``, can use."""

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from kvtune.apply.image_list import list_images, readable_images
from kvtune.errors import RequestError


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def put(*names):
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(name)


def test_cocos_own_names_give_ids_and_others_stay_names():
    put("photos/COCO_val2014_000000000042.jpg", "photos/000000000043.jpg", "photos/7.jpg", "photos/my cat.PNG")
    assert list_images([Path("photos")]) == [
        (43, Path("photos/000000000043.jpg")),
        ("7.jpg", Path("photos/7.jpg")),
        (42, Path("photos/COCO_val2014_000000000042.jpg")),
        ("my cat.PNG", Path("photos/my cat.PNG")),
    ]


def test_a_folder_is_all_images_below_it_by_their_paths_in_it():
    put("in/b.jpg", "in/a/b.jpg", "in/.hidden.jpg", "in/.cache/x.jpg")
    Path("in/notes.json").write_text("{}")
    assert list_images([Path("in")]) == [("b.jpg", Path("in/b.jpg")), ("a/b.jpg", Path("in/a/b.jpg"))]


def test_a_list_names_a_path_a_line_from_where_the_command_runs(monkeypatch):
    put("in/b.jpg", "c.jpg")
    Path("lists").mkdir()
    Path("lists/mine.txt").write_text("\ufeffin/b.jpg\r\n\n  \nc.jpg\nin/gone.jpg\n", encoding="utf-8")
    expected = [(name, Path(name)) for name in ("in/b.jpg", "c.jpg", "in/gone.jpg")]
    assert list_images([Path("lists/mine.txt")]) == expected
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"c.jpg\n")))
    assert list_images([Path("-")]) == [("c.jpg", Path("c.jpg"))]


def test_a_tilde_in_a_list_is_a_home_or_part_of_a_name(monkeypatch):
    monkeypatch.setenv("HOME", str(Path("home").resolve()))
    put("home/a.jpg", "~draft.jpg")
    Path("list.txt").write_text("~/a.jpg\n~draft.jpg\n")
    assert [path for _, path in list_images([Path("list.txt")])] == [Path("home/a.jpg").resolve(), Path("~draft.jpg")]


def test_an_image_that_is_given_twice_is_there_once():
    put("in/b.jpg")
    Path("list.txt").write_text("in/b.jpg\n./in/b.jpg\n")
    assert list_images([Path("list.txt"), Path("in/b.jpg")]) == [("in/b.jpg", Path("in/b.jpg"))]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["a", "b"], "a/x.jpg and b/x.jpg would both be called x.jpg"),
        (["ids"], "would both be called 42"),
        (["empty"], "folder empty has no image (.jpg, "),
        (["words.txt"], "list words.txt names no image that is there"),
        (["text.txt"], "no file or folder can be called 'It was a long summer."),
        (["gone.txt"], "list file gone.txt does not exist"),
    ],
)
def test_what_cannot_be_told_apart_or_is_nothing_is_refused(given, said):
    put("a/x.jpg", "b/x.jpg", "ids/COCO_val2014_000000000042.jpg", "ids/000000000042.jpg")
    Path("empty").mkdir()
    Path("words.txt").write_text("What I did last summer\n")
    Path("text.txt").write_text("It was a long summer. " * 20)
    with pytest.raises(RequestError) as refused:
        list_images([Path(name) for name in given])
    assert said in str(refused.value)


def test_broken_images_are_refused_together_or_left_out():
    put("in/a.jpg", "in/b.jpg", "in/c.jpg", "in/d.jpg")
    Path("in/b.jpg").write_bytes(Path("in/b.jpg").read_bytes()[:200])
    Path("in/c.jpg").write_text("no image")
    images = [*list_images([Path("in")]), ("e.jpg", Path("in/e.jpg")), ("f.jpg", Path("in/\udcff.jpg"))]
    with pytest.raises(RequestError, match=r"^4 of 6 images cannot be read: .*; [.][.][.]; replace them, or --skip-br"):
        readable_images(images, False)
    readable, broken = readable_images(images, True)
    assert [name for name, _ in readable] == ["a.jpg", "d.jpg"]
    assert {path.name: why for path, why in broken.items()} == {
        "b.jpg": "Truncated File Read",
        "c.jpg": "not an image",
        "e.jpg": "no such file",
        "\udcff.jpg": "its name is not UTF-8",
    }
