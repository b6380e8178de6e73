"""Captions of any number of images in one file: each once, with one setting, however often the work is killed."""

import json
import random
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import pytest
from killing import child, die_at
from PIL import Image

from kvtune.apply import at_work
from kvtune.apply.at_work import Job, caption_into_file
from kvtune.apply.image_list import list_images
from kvtune.apply.made_with import about
from kvtune.captioning.request import Work
from kvtune.chair import read_captions_file
from kvtune.errors import KvtuneError, RequestError
from kvtune.locks import locked_file
from kvtune.models.options import ModelOptions

OPTIONS = ModelOptions("small")


class Writer:
    """Captions of a few images at a time, in another order; images that are called so are not taken."""

    def __init__(self, prompt: str, max_new_tokens: int) -> None:
        self.question, self.max_new_tokens = prompt, max_new_tokens
        self.vlm = SimpleNamespace(
            name="small",
            model_id="/models/small",
            revision=None,
            dtype_name="float32",
            family=SimpleNamespace(usual_tokens=95.0),
        )
        self.asked: list = []

    def run(self, requests, on_work=lambda work: None):
        requests = iter(requests)
        while some := list(islice(requests, 5)):
            self.prompts_of(some)
            random.Random(len(self.asked)).shuffle(some)
            for request in some:
                self.asked.append(request.image_id)
                yield SimpleNamespace(
                    image_id=request.image_id,
                    text=f"Of {request.image_id}.",
                    token_ids=(1, 2, 3),
                    finish_reason="eos",
                    tag=request.tag,
                )
            on_work(Work(prompts=len(self.asked), tokens=3 * len(self.asked), in_flight=0))

    def prompts_of(self, requests):
        if any("refused" in str(request.image_id) for request in requests):
            raise RequestError("small cannot take an image of 4x4 pixels")


@pytest.fixture(autouse=True)
def opened(monkeypatch):
    """The captioners that were opened."""
    opened = []

    def open_with_preset(options, choice, prompt, max_new_tokens, keep_images):
        opened.append(Writer(prompt or "What is this?", max_new_tokens or 512))
        return SimpleNamespace(captioner=opened[-1], preset=None, method=None)

    monkeypatch.setattr(at_work, "open_with_preset", open_with_preset)
    monkeypatch.setattr(at_work, "_known", lambda job: {"prompt": job.prompt} if job.prompt else {})
    return opened


@pytest.fixture
def images(tmp_path):
    return pictures(tmp_path / "in", *(f"{number:02}.png" for number in range(12)))


def pictures(folder, *names):
    folder.mkdir()
    for name in names:
        Image.new("RGB", (4, 4)).save(folder / name)
    return list_images([folder])


def names_in(out: Path) -> list:
    return [json.loads(line)["image_id"] for line in out.read_text().splitlines()]


def test_every_image_once_and_then_nothing_more(tmp_path, images, opened):
    out = tmp_path / "new" / "captions.jsonl"
    seen, said = [], []
    done = caption_into_file(
        Job(images, out, OPTIONS), on_progress=lambda pace: seen.append((pace.there, pace.total)), note=said.append
    )
    assert len(said) == 1 and "without a method" in said[0]
    assert sorted(names_in(out)) == [name for name, _ in images] and (done.captions, done.written) == (12, 12)
    assert seen[-1] == (12, 12) and all(total == 12 for _, total in seen)
    assert json.loads(out.read_text().splitlines()[0]).keys() == {"image_id", "caption", "tokens", "finish_reason"}
    before = out.read_bytes()
    again = caption_into_file(Job(images, out, OPTIONS))
    assert out.read_bytes() == before and (again.captions, again.written) == (12, 0) and len(opened) == 1
    assert [path.name for path in sorted(out.parent.iterdir())] == ["captions.jsonl", "captions.jsonl.about.json"]


def test_a_preset_of_a_study_says_how_long_captions_are(tmp_path, images, monkeypatch):
    preset = SimpleNamespace(name="mine", method_name="kvsmooth", metrics=SimpleNamespace(tune={"mean_words": 40.0}))
    work = SimpleNamespace(captioner=Writer("What is this?", 512), preset=preset, method=None)
    monkeypatch.setattr(at_work, "open_with_preset", lambda *asked, **settings: work)
    seen = []
    job = Job(images, tmp_path / "captions.jsonl", OPTIONS)
    caption_into_file(job, on_progress=lambda pace: seen.append(pace.tokens_each))
    assert 3 < min(seen) < max(seen) < 1.3 * 40  # on the way from what was expected to what comes
    assert max(seen) > 0.5 * 40


def test_more_images_are_added_to_those_that_are_there(tmp_path, images, opened):
    out = tmp_path / "captions.jsonl"
    caption_into_file(Job(images[:7], out, OPTIONS))
    done = caption_into_file(Job(images[3:], out, OPTIONS))
    assert (done.captions, done.written) == (9, 5)
    assert sorted(opened[1].asked) == [name for name, _ in images[7:]]


def test_killed_at_any_change_of_a_file_every_image_has_one_caption(tmp_path, images):
    for step in range(1, 24):
        folder = tmp_path / str(step)
        job = Job(images[:4], folder / "captions.jsonl", OPTIONS)

        def work(step: int = step, job: Job = job) -> None:
            die_at(step)
            caption_into_file(job)

        code = child(work)
        caption_into_file(job)
        assert sorted(names_in(job.out)) == [name for name, _ in images[:4]], step
        assert len(list(folder.iterdir())) == 2
    assert code == 0, "the last steps are beyond the end"


def test_other_settings_are_refused_in_words(tmp_path, images, opened):
    out = tmp_path / "captions.jsonl"
    caption_into_file(Job(images[:2], out, OPTIONS, prompt="What is this?"))
    before = out.read_bytes(), about(out).read_bytes()
    with pytest.raises(RequestError, match=r'was written with prompt "What is this[?]", but this command has "Why[?]"'):
        caption_into_file(Job(images, out, OPTIONS, prompt="Why?"))
    assert len(opened) == 1, "known before the model is loaded"
    with pytest.raises(RequestError, match=r"was written with max_new_tokens 512, but this command has 9; ask as befo"):
        caption_into_file(Job(images, out, OPTIONS, max_new_tokens=9))
    assert (out.read_bytes(), about(out).read_bytes()) == before


def test_a_file_that_something_else_wrote_is_refused(tmp_path, images):
    out = tmp_path / "captions.jsonl"
    out.write_text('{"image_id": 1, "caption": "A dog."}\n')
    with pytest.raises(RequestError, match=r"captions.jsonl.about.json, which says what wrote it, is not beside it"):
        caption_into_file(Job(images, out, OPTIONS))
    mine = tmp_path / "mine.jsonl"
    caption_into_file(Job(images, mine, OPTIONS))
    about(out).write_text(json.dumps(json.loads(about(mine).read_text()) | {"colour": 1}))
    with pytest.raises(RequestError, match=r"unknown key 'colour'"):
        caption_into_file(Job(images, out, OPTIONS))


def test_a_second_process_is_refused(tmp_path, images, opened):
    out = tmp_path / "captions.jsonl"

    def second(pace):
        with pytest.raises(RequestError, match=r"is being written by another process; wait for it, or name another"):
            caption_into_file(Job(images, out, OPTIONS))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        caption_into_file(Job(images, out, OPTIONS), on_progress=second)
    assert len(opened) == 1 and len(names_in(out)) == 5
    caption_into_file(Job(images, out, OPTIONS))
    assert len(names_in(out)) == 12


def test_one_that_begins_while_another_loads_its_model_is_refused_too(tmp_path, images, monkeypatch):
    out = tmp_path / "captions.jsonl"
    load = at_work.open_with_preset

    def loaded_meanwhile(*given, **named):
        locked_file(out)
        return load(*given, **named)

    monkeypatch.setattr(at_work, "open_with_preset", loaded_meanwhile)
    with pytest.raises(RequestError, match=r"is being written by another process"):
        caption_into_file(Job(images, out, OPTIONS))


def test_broken_images_are_a_line_or_left_out_and_listed(tmp_path, images, opened):
    out = tmp_path / "captions.jsonl"
    images[4][1].write_text("no image")
    with pytest.raises(RequestError, match=r"^1 of 12 images cannot be read: .*04.png .not an image."):
        caption_into_file(Job(images, out, OPTIONS))
    assert not out.exists() and not opened
    said = []
    done = caption_into_file(Job(images, out, OPTIONS, skip_broken=True), note=said.append)
    assert done.captions == 11 and said[:1] == [f"skipped {images[4][1]}: not an image"]
    assert json.loads(about(out).read_text())["skipped"] == [{"image": str(images[4][1]), "reason": "not an image"}]
    again = caption_into_file(Job(images, out, OPTIONS, skip_broken=True))
    assert (again.captions, again.written, len(opened)) == (11, 0, 1), "no model is loaded for a broken image"
    Image.new("RGB", (4, 4)).save(images[4][1])
    assert caption_into_file(Job(images, out, OPTIONS)).captions == 12
    assert json.loads(about(out).read_text())["skipped"] == []


def test_no_image_that_can_be_read_is_a_line(tmp_path, images, opened):
    for _, path in images:
        path.write_text("no image")
    with pytest.raises(RequestError, match=r"^none of the 12 images can be read"):
        caption_into_file(Job(images, tmp_path / "captions.jsonl", OPTIONS, skip_broken=True))
    assert not opened


def test_images_that_the_model_refuses_are_named_or_left_out(tmp_path):
    images = pictures(tmp_path / "in", "a.png", "b.png", "c-refused.png", "d.png", "e.png", "f.png", "g-refused.png")
    out = tmp_path / "captions.jsonl"
    with pytest.raises(KvtuneError, match=r"stopped at .*c-refused.png: small cannot take .* --skip-broken goes on"):
        caption_into_file(Job(images, out, OPTIONS))
    done = caption_into_file(Job(images, out, OPTIONS, skip_broken=True))
    assert done.captions == 5 and [path.name for path in done.skipped] == ["c-refused.png", "g-refused.png"]
    assert [each["reason"] for each in json.loads(about(out).read_text())["skipped"]] == [
        "small cannot take an image of 4x4 pixels"
    ] * 2


def test_a_model_that_takes_no_image_leaves_none_out(tmp_path):
    images = pictures(tmp_path / "in", "a-refused.png", "b-refused.png")
    out = tmp_path / "captions.jsonl"
    with pytest.raises(KvtuneError, match=r"captioning stopped: small cannot take an image"):
        caption_into_file(Job(images, out, OPTIONS, skip_broken=True))
    assert not out.exists() and not about(out).exists()


def test_score_reads_the_file(tmp_path):
    out = tmp_path / "captions.jsonl"
    caption_into_file(Job(pictures(tmp_path / "in", "COCO_val2014_000000000042.png"), out, OPTIONS))
    assert read_captions_file(out).captions == [{"image_id": 42, "caption": "Of 42.", "finish_reason": "eos"}]


@pytest.mark.parametrize("out", ["folder", "in/00.png/captions.jsonl", "x" * 250])
def test_what_cannot_be_written_is_refused_at_once(tmp_path, images, opened, out):
    (tmp_path / "folder").mkdir()
    with pytest.raises(RequestError):
        caption_into_file(Job(images, tmp_path / out, OPTIONS))
    assert not opened
