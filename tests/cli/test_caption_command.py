"""``kvtune caption`` on the demo: baseline beside preset, objects marked; and the preset at work into a file."""

import json
import random
import signal
import subprocess
import time
from collections import Counter

import pytest
from checkpoints import save_llava
from commands import kvtune
from forked import kvtune_forked
from PIL import Image

from kvtune.cli.main import main
from kvtune.coco import CocoFolder
from kvtune.demo import demo_coco


@pytest.fixture(scope="module")
def coco():
    return CocoFolder(demo_coco())


@pytest.fixture
def kvtune_here(capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(["caption", *map(str, arguments)])
        said = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, ended.value.code or 0, said.out, said.err)

    return run


def test_both_captions_and_what_is_in_the_picture(kvtune_here, coco):
    ids = coco.image_ids("val2014")[:2]
    result = kvtune_here(*coco.image_paths(ids), "--model", "demo", "--coco", coco.root, "--json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert (document["model"], document["preset"]) == ("demo", "demo")
    truth = coco.categories(ids)
    for image_id, shown in zip(ids, document["images"], strict=True):
        assert set(shown["in_picture"]) == truth[image_id]
        for caption in shown["captions"].values():
            assert caption["finish_reason"] == "eos"
            assert set(caption["mentioned"]) & truth[image_id]  # the demo model sees something of it
    texts = [caption["caption"] for shown in document["images"] for caption in shown["captions"].values()]
    assert len(set(texts)) > 2  # the preset changes something


@pytest.mark.slow
def test_marks_are_signs_where_there_is_no_colour(coco):
    (image_id,) = coco.image_ids("val2014")[:1]
    image = coco.image_paths([image_id])[0]
    result = kvtune("caption", image, "--model", "demo", "--coco", coco.root, COLUMNS="60", NO_COLOR="1")
    assert result.returncode == 0, result.stderr
    assert "✓" in result.stdout
    assert "\x1b" not in result.stdout
    path, *captions = result.stdout.splitlines()
    assert path == str(image) and len(path) > 60  # whole, to be copied
    assert max(map(len, captions)) <= 60


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["missing.jpg", "--model", "demo"], "missing.jpg"),
        (["missing.jpg", "--model", "deno"], "leaves them out; and unknown model 'deno', did you mean 'demo'?"),
        (["missing.jpg", "--model", ".", "--out", "c.jsonl", "-q"], "holds no config.json"),
        (["picture.txt", "--model", "demo"], "list picture.txt names no image that is there"),
        (["nameless.png", "--model", "demo", "--out", "."], "is a folder; name a file in it"),
        (["nameless.png", "--model", "demo", "--out", "truth.json"], "truth.json is there already"),
        (["nameless.png", "--model", "demo", "--out", "c.jsonl", "--trace", "t"], "--trace is for captions that are"),
        (["nameless.png", "--model", "demo", "--ground-truth", "truth.json"], "has no COCO id in its name"),
        (["nameless.png", "--model", "demo", "--preset", "nothing"], "'nothing'"),
    ],
)
def test_a_wrong_request_is_one_line(kvtune_here, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "picture.txt").write_text("no image")
    Image.new("RGB", (8, 8)).save(tmp_path / "nameless.png")
    (tmp_path / "truth.json").write_text('{"1": ["dog"]}')
    result = kvtune_here(*arguments)
    assert result.returncode == 2
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_trace_is_of_the_same_captions(kvtune_here, coco, tmp_path):
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow", reason="Parquet needs the extra 'parquet'")
    ids = coco.image_ids("val2014")[:2]
    arguments = (*coco.image_paths(ids), "--model", "demo", "--coco", coco.root, "--json")
    plain, traced = kvtune_here(*arguments), kvtune_here(*arguments, "--trace", tmp_path / "trace")
    assert traced.returncode == 0, traced.stderr
    document = json.loads(traced.stdout)
    assert document["images"] == json.loads(plain.stdout)["images"]
    names = {path.name for path in (tmp_path / "trace").iterdir()}
    assert {str(tmp_path / "trace" / name) for name in names} == set(document["trace"]) and len(names) == 6
    layers = pd.read_parquet(tmp_path / "trace" / "layers.parquet")
    for shown in document["images"]:
        for name, caption in shown["captions"].items():
            rows = layers[(layers.image == shown["image"]) & (layers.caption == name) & (layers.layer == 0)]
            assert len(rows) == caption["tokens"] + 1
            assert rows.mention.dropna().tolist() == caption["mentioned"]
            assert "".join(rows.token[:-1]).replace("▁", " ").strip() == caption["caption"]


def test_objects_may_be_named(kvtune_here, coco, tmp_path):
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow", reason="Parquet needs the extra 'parquet'")
    (image_id,) = coco.image_ids("val2014")[:1]
    picture = (coco.image_paths([image_id])[0], "--model", "demo", "--max-new-tokens", 20)
    trace = ("--trace", tmp_path)
    assert kvtune_here(*picture, *trace, "--object", "dog", "--object", "wall").returncode == 0
    assert set(pd.read_parquet(tmp_path / "objects.parquet").word) == {"dog", "wall"}
    for arguments, said in (((*trace, "--object", "zebra"), "no word 'zebra'"), (("--object", "dog"), "give --trace")):
        result = kvtune_here(*picture, *arguments)
        assert result.returncode == 2 and said in result.stderr and len(result.stderr.strip().splitlines()) == 1


def test_a_published_preset_is_not_for_a_folder_that_has_the_models_name_alone(kvtune_here, coco, tmp_path):
    folder = tmp_path / "llava-1.5"
    save_llava(folder)
    (image_id,) = coco.image_ids("val2014")[:1]
    result = kvtune_here(coco.image_paths([image_id])[0], "--model", folder, "--max-new-tokens", "2", "--json")
    assert result.returncode == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["preset"] is None and list(document["images"][0]["captions"]) == ["baseline"]


def test_the_preset_at_work(kvtune_here, coco, tmp_path):
    """Its own question and method, in a file that kvtune score reads; --preset none captions without a method."""
    ids = coco.image_ids("val2014")[:3]
    files, quick = coco.image_paths(ids), ("--model", "demo", "--max-new-tokens", "25", "--json")
    shown = json.loads(kvtune_here(*files, *quick).stdout)
    for name, preset in (("preset", "demo"), ("baseline", "none")):
        out = tmp_path / f"{name}.jsonl"
        prompt = () if preset == "demo" else ("--prompt", shown["prompt"])
        result = kvtune_here(*files, *quick, "--preset", preset, *prompt, "--out", out)
        assert result.returncode == 0, result.stderr
        document = json.loads(result.stdout)
        assert (document["captions"], document["written"], document["skipped"]) == (3, 3, [])
        assert f"question: {shown['prompt']}" in result.stderr and document["prompt"] == shown["prompt"]
        written = {line["image_id"]: line["caption"] for line in map(json.loads, out.read_text().splitlines())}
        assert [written[image_id] for image_id in ids] == [
            each["captions"][name]["caption"] for each in shown["images"]
        ]
    result = kvtune_here(*files, *quick, "--preset", "none", "--out", tmp_path / "preset.jsonl")
    assert result.returncode == 2 and 'was written with method "kvsmooth", but this command has none' in result.stderr


@pytest.mark.slow
def test_killed_three_times_nothing_is_written_twice(coco, tmp_path):
    folder, out, chance = tmp_path / "in", tmp_path / "captions.jsonl", random.Random(0)
    folder.mkdir()
    ids = coco.image_ids("val2014")[:60]
    for path in coco.image_paths(ids):
        (folder / path.name).symlink_to(path)
    command = ("caption", folder, "--model", "demo", "--out", out)

    def lines():
        return out.read_bytes().count(b"\n") if out.exists() else 0

    for sent, ended in ((signal.SIGKILL, -9), (signal.SIGINT, 130), (signal.SIGTERM, 130)):
        process = kvtune_forked(*command)
        moment = lines() + chance.randrange(1, 12)
        while process.poll() is None and lines() < moment:
            time.sleep(0.01)
        process.send_signal(sent)
        assert process.wait() == ended
    last = kvtune(*command, "--lanes", 7)
    assert last.returncode == 0, last.stderr
    assert Counter(json.loads(line)["image_id"] for line in out.read_text().splitlines()) == Counter(ids)
