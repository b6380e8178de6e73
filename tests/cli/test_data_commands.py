"""``kvtune data`` as its users run it: real COCO, bad input in one line, and processes that are stopped."""

import io
import json
import os
import signal
import subprocess
import sys
import time
import zipfile

import pytest
from bad_server import running_server
from commands import kvtune
from small_coco import write_coco

from kvtune.coco import CocoFolder, Subset, holdout_beside, tune_and_holdout


def refused(run, code=2):
    """The one line on stderr of a run that was refused."""
    assert run.returncode == code, run.stderr
    assert run.stdout == ""
    lines = run.stderr.strip().splitlines()
    assert lines[-1].startswith("kvtune: ")
    assert "Traceback" not in run.stderr
    return lines[-1]


@pytest.fixture
def coco(tmp_path):
    root = write_coco(tmp_path / "coco", "val2014", range(1, 31))
    return write_coco(root, "val2017", range(50, 61))


@pytest.fixture
def server(tmp_path):
    """Serves val2014 of 30 images, 3 of them in opera500, as COCO's server does."""
    ids = [*range(1, 28), *Subset.load("opera500").image_ids[:3]]
    origin = write_coco(tmp_path / "origin", "val2014", ids)
    with running_server() as server:
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as opened:
            for path in (origin / "annotations").iterdir():
                opened.write(path, f"annotations/{path.name}")
        server.files["/annotations/annotations_trainval2014.zip"] = archive.getvalue()
        for path in (origin / "val2014").iterdir():
            server.files[f"/val2014/{path.name}"] = path.read_bytes()
        yield server


def test_subset(coco, tmp_path):
    path = tmp_path / "new" / "mine.json"
    run = kvtune("data", "subset", "--coco", coco, "--images", 12, "--seed", 4, "--out", path)
    assert (run.returncode, run.stderr) == (0, "")
    subset = Subset.load(path)
    assert (subset.source, subset.seed, len(subset.image_ids)) == ("val2014", 4, 12)
    assert str(path) in run.stdout
    again = kvtune("data", "subset", "--images", 12, "--seed", 4, "--out", path, "--json", KVTUNE_COCO=str(coco))
    assert Subset.load(path) == subset
    assert json.loads(again.stdout) == {
        "out": str(path),
        "format": "kvtune-subset/1",
        "name": subset.name,
        "source": "val2014",
        "seed": 4,
        "images": 12,
        "sha256": subset.sha256,
    }


def test_subset_of_a_split_with_a_name(coco, tmp_path):
    path = tmp_path / "s.json"
    arguments = ("--coco", coco, "--images", 11, "--source", "val2017", "--name", "all of it", "--out", path)
    assert kvtune("data", "subset", *arguments).returncode == 0
    subset = Subset.load(path)
    assert (subset.name, sorted(subset.image_ids)) == ("all of it", list(range(50, 61)))


def test_subset_of_real_coco(shared_data, tmp_path):
    run = kvtune("data", "subset", "--coco", shared_data / "coco-mini", "--images", 20, "--out", tmp_path / "s.json")
    assert (run.returncode, run.stderr) == (0, "")
    assert Subset.load(tmp_path / "s.json").source == "val2017"


def test_subset_refused(coco, tmp_path):
    out = tmp_path / "s.json"
    ask = ("data", "subset", "--coco", coco, "--out", out)
    assert "only 30 that are not set aside" in refused(kvtune(*ask, "--images", 31))
    assert "no annotations of 'train2014', only of val2014, val2017" in refused(
        kvtune(*ask, "--images", 3, "--source", "train2014")
    )
    refused(kvtune(*ask, "--images", 0))
    assert "nowhere does not exist" in refused(
        kvtune("data", "subset", "--coco", tmp_path / "nowhere", "--images", 3, "--out", out)
    )
    line = refused(kvtune("data", "subset", "--images", 3, "--out", out, HOME=str(tmp_path), KVTUNE_COCO=""))
    assert line.endswith(f"kvtune data download --to {tmp_path}/.cache/kvtune/coco")
    path = coco / "annotations" / "captions_val2014.json"
    path.write_text(path.read_text()[:-100])
    assert f"{path} is not valid JSON: cut off" in refused(kvtune(*ask, "--images", 3))
    assert not out.exists()


def test_out_that_cannot_be_written(coco, tmp_path):
    (tmp_path / "file").write_text("")
    run = kvtune("data", "subset", "--coco", coco, "--images", 3, "--out", tmp_path / "file" / "s.json")
    assert "cannot write" in refused(run)


def test_ground_truth(coco, tmp_path):
    """Instances of the small COCO: a person, in even images a dog, where 5 divides the id nothing."""
    captions = coco / "annotations" / "captions_val2014.json"
    captions.write_text(captions.read_text().replace("Caption 0 of 5.", "Two sheep beside a bike."))
    path = tmp_path / "truth.json"
    run = kvtune("data", "ground-truth", "--coco", coco, "--out", path, "--json")
    assert run.stderr.startswith(
        "warning: 9 of 41 images have no instance in instances_val2014.json, instances_val2017.json of "
    )
    truth = json.loads(path.read_text())
    assert sorted(map(int, truth)) == [*range(1, 31), *range(50, 61)]
    assert (truth["4"], truth["5"], truth["7"]) == (["dog", "person"], ["bicycle", "sheep"], ["person"])
    objects = sum(len(names) for names in truth.values())
    assert json.loads(run.stdout) == {"out": str(path), "images": 41, "objects": objects}

    Subset.of("three", "val2014", [5, 4, 3]).save(tmp_path / "three.json")
    run = kvtune("data", "ground-truth", "--coco", coco, "--subset", tmp_path / "three.json", "--out", path)
    assert run.stdout == f"{path}: 5 objects in 3 images\n"
    assert json.loads(path.read_text()) == {key: truth[key] for key in "345"}


def test_ground_truth_of_real_coco(shared_data, tmp_path):
    """At least 156 of the 159 images as the CHAIR reference has them."""
    root = shared_data / "coco-mini"
    assert kvtune("data", "ground-truth", "--coco", root, "--out", tmp_path / "truth.json").returncode == 0
    truth = json.loads((tmp_path / "truth.json").read_text())
    expected = json.loads((root / "ground_truth_expected.json").read_text())
    assert truth.keys() == expected.keys()
    assert sum(sorted(truth[key]) == sorted(expected[key]) for key in expected) >= 156


def test_ground_truth_refused(coco, tmp_path):
    out = tmp_path / "truth.json"
    ask = ("data", "ground-truth", "--coco", coco, "--out", out)
    assert "image 226988 is not in the annotations" in refused(kvtune(*ask, "--subset", "opera500"))
    (tmp_path / "bad.json").write_text('{"format": "kvtune-subset/1", "ids": [1]}')
    refused(kvtune(*ask, "--subset", tmp_path / "bad.json"))
    path = coco / "annotations" / "instances_val2017.json"
    path.write_text(path.read_text()[:-100])
    assert f"{path} is not valid JSON: cut off" in refused(kvtune(*ask))
    path.unlink()
    assert "no instances_val2017.json, which image 50 needs" in refused(kvtune(*ask))
    assert not out.exists()


def test_download_of_a_subset(server, tmp_path):
    subset = Subset.of("five", "val2014", [5, 3, 1, 20, 21])
    subset.save(tmp_path / "five.json")
    ask = ("data", "download", "--to", tmp_path / "to", "--subset", tmp_path / "five.json", "--base-url", server.url)
    run = kvtune(*ask)
    assert run.returncode == 0
    assert "images of five: 5 of 5" in run.stderr.splitlines()
    assert run.stdout == f"{tmp_path / 'to'}: 5 images downloaded, 0 were there\n"
    assert len(CocoFolder(tmp_path / "to").image_paths(subset.image_ids)) == 5
    again = kvtune(*ask, "--json", "-q")
    assert json.loads(again.stdout) == {"coco": str(tmp_path / "to"), "annotations": [], "downloaded": 0, "present": 5}
    assert again.stderr == ""


def test_download_of_what_search_draws(server, tmp_path):
    root = tmp_path / "to"
    options = ("--images", 8, "--holdout-images", 6, "--seed", 3)
    run = kvtune("data", "download", *options, "--base-url", server.url, "--json", KVTUNE_COCO=str(root))
    assert run.returncode == 0, run.stderr
    folder = CocoFolder(root)
    for drawn in tune_and_holdout(folder, 8, 6, seed=3):
        folder.image_paths(drawn.image_ids)
    assert len(list((root / "val2014").iterdir())) == 14


def test_download_with_held_out_images_beside_a_subset(server, tmp_path):
    given = Subset.of("three", "val2014", [1, 2, 3])
    given.save(tmp_path / "three.json")
    ask = ("--subset", tmp_path / "three.json", "--holdout-images", 4, "--seed", 5, "--base-url", server.url)
    assert kvtune("data", "download", "--to", tmp_path / "to", *ask).returncode == 0
    folder = CocoFolder(tmp_path / "to")
    folder.image_paths([*given.image_ids, *holdout_beside(folder, given, 4, seed=5).image_ids])
    assert len(list((tmp_path / "to" / "val2014").iterdir())) == 7


def test_download_refused(server, tmp_path):
    ask = ("data", "download", "--to", tmp_path / "to", "--base-url", server.url)
    assert "there is no subset 'opera50', did you mean 'opera500'" in refused(kvtune(*ask, "--subset", "opera50"))
    assert "unknown COCO split 'val2015'" in refused(kvtune(*ask, "--source", "val2015"))
    assert "is no web address" in refused(kvtune("data", "download", "--to", tmp_path / "to", "--base-url", "mirror"))
    assert not (tmp_path / "to").exists()
    assert "only 27 outside opera500" in refused(kvtune(*ask, "--images", 20, "--holdout-images", 20))
    Subset.of("other", "val2014", [1, 999]).save(tmp_path / "other.json")
    assert "image 999 is not in val2014" in refused(kvtune(*ask, "--subset", tmp_path / "other.json"))
    assert not (tmp_path / "to" / "val2014").exists()


def test_download_of_lost_images(server, tmp_path):
    Subset.of("three", "val2014", [1, 2, 3]).save(tmp_path / "three.json")
    del server.files["/val2014/COCO_val2014_000000000002.jpg"]
    ask = ("data", "download", "--to", tmp_path / "to", "--subset", tmp_path / "three.json", "--base-url", server.url)
    line = refused(kvtune(*ask), code=1)
    assert "1 of 3 images could not be had" in line
    assert "COCO_val2014_000000000002.jpg: 404 Not Found" in line


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_stopped_download_goes_on(server, tmp_path, end):
    """The archive arrives slowly; the process is stopped in the middle and the next one asks only for the rest."""
    archive = "/annotations/annotations_trainval2014.zip"
    # Stored, and made of noise, so that it is large enough to be in transit for a while.
    buffer = io.BytesIO(server.files[archive])
    with zipfile.ZipFile(buffer, "a") as opened:
        opened.writestr("annotations/padding.bin", os.urandom(2_000_000))
    server.files[archive] = buffer.getvalue()
    server.chunk_delay = 0.02
    Subset.of("three", "val2014", [1, 2, 3]).save(tmp_path / "three.json")
    ask = ["data", "download", "--to", str(tmp_path / "to"), "--subset", str(tmp_path / "three.json")]
    ask += ["--base-url", server.url]
    process = subprocess.Popen(
        [sys.executable, "-m", "kvtune.cli.main", *ask], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    part = tmp_path / "to" / "annotations" / "annotations_trainval2014.zip.part"
    deadline = time.monotonic() + 60
    while not (part.exists() and part.stat().st_size > 200_000):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(end)
    out, err = process.communicate(timeout=60)
    assert out == ""
    assert "Traceback" not in err
    if end == signal.SIGINT:
        assert process.returncode == 130
        assert "the same command goes on" in err
    came = part.stat().st_size
    assert not part.with_suffix("").exists()
    server.chunk_delay = 0.0
    assert kvtune(*ask).returncode == 0
    assert [start for path, start in server.starts if path == archive] == [0, came]
    assert len(CocoFolder(tmp_path / "to").image_paths([1, 2, 3])) == 3


def test_help_needs_no_heavy_imports():
    code = (
        "import sys; from kvtune.cli.main import main\n"
        "try: main(['data', 'download', '--help'])\n"
        "finally: assert not {'torch', 'numpy', 'PIL', 'pycocotools'} & set(sys.modules), sys.modules.keys()"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60).returncode == 0
