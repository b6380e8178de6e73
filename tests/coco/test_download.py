"""COCO from a local server in COCO's own layout."""

import fcntl
import functools
import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from bad_server import running_server
from PIL import Image

from kvtune.coco import CocoFolder, download
from kvtune.coco.download import Fetched, check_base_url, download_annotations, download_images
from kvtune.coco.fetch import Patience
from kvtune.errors import KvtuneError, RequestError

QUICK = Patience(attempts=3, delay=0.01, timeout=5)
IDS = list(range(1, 31))


def archive_of(folder: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted((folder / "annotations").iterdir()):
            archive.write(path, f"annotations/{path.name}")
    return buffer.getvalue()


@pytest.fixture
def server(make_coco, tmp_path):
    """Serves val2014, train2014 and val2017 as COCO's server does."""
    with running_server() as server:
        for year, sources in (("2014", ("val2014", "train2014")), ("2017", ("val2017", "train2017"))):
            origin = tmp_path / "origin" / year
            for source in sources:
                make_coco(source, IDS, root=origin)
                for path in (origin / source).iterdir():
                    server.files[f"/{source}/{path.name}"] = path.read_bytes()
            server.files[f"/annotations/annotations_trainval{year}.zip"] = archive_of(origin)
        yield server


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


ARCHIVE = "/annotations/annotations_trainval2014.zip"


@pytest.mark.parametrize("source", ["val2014", "val2017", "train2017"])
def test_annotations_and_images(server, tmp_path, source):
    root = tmp_path / "coco"
    written = download_annotations(root, source, server.url, QUICK)
    assert sorted(path.name for path in written) == [f"captions_{source}.json", f"instances_{source}.json"]
    assert names(root / "annotations") == [f"captions_{source}.json", f"instances_{source}.json"]
    seen = []
    fetched = download_images(root, source, [4, 9], server.url, QUICK, lambda *progress: seen.append(progress))
    assert fetched == Fetched(downloaded=2, present=0)
    assert seen == [(1, 2), (2, 2)]
    folder = CocoFolder(root)
    assert folder.image_ids(source) == IDS
    assert folder.categories([4]) == {4: {"person", "dog"}}
    for path in folder.image_paths([4, 9]):
        assert path.read_bytes() == server.files[f"/{source}/{path.name}"]
    assert len(list((root / source).iterdir())) == 2


def test_nothing_is_fetched_twice(server, tmp_path):
    for _ in range(2):
        download_annotations(tmp_path / "coco", "val2014", server.url, QUICK)
        fetched = download_images(tmp_path / "coco", "val2014", IDS, server.url, QUICK)
    assert fetched == Fetched(downloaded=0, present=30)
    assert set(server.requests.values()) == {1}
    assert len(server.requests) == 31


def test_flat_folders_are_recognised(server, make_coco, tmp_path):
    root = make_coco("val2014", IDS, layout="flat", root=tmp_path / "flat")
    assert download_annotations(root, "val2014", server.url, QUICK) == []
    assert download_images(root, "val2014", IDS, server.url, QUICK).present == 30
    assert not server.requests


def test_cut_annotations_are_replaced(server, make_coco, tmp_path):
    root = make_coco("val2014", IDS, root=tmp_path / "cut")
    path = root / "annotations" / "instances_val2014.json"
    whole = path.read_text()
    for damaged in (whole[: len(whole) // 2], ""):
        path.write_text(damaged)
        assert download_annotations(root, "val2014", server.url, QUICK) == [path]
        assert path.read_text() == whole


def test_damaged_images_are_replaced(server, make_coco, tmp_path):
    root = make_coco("val2014", IDS, root=tmp_path / "cut")
    for number in (3, 7):
        path = root / "val2014" / f"COCO_val2014_{number:012d}.jpg"
        path.write_bytes(path.read_bytes()[:200])
    assert download_images(root, "val2014", IDS, server.url, QUICK) == Fetched(downloaded=2, present=28)
    for path in CocoFolder(root).image_paths(IDS):
        Image.open(path).load()


def test_every_fault_is_survived(server, tmp_path):
    server.faults[ARCHIVE] = ["truncate", 503, "drop", "truncate"]
    faults = ["drop", "truncate", "page", 503, 500]
    for number in IDS:
        server.faults[f"/val2014/COCO_val2014_{number:012d}.jpg"] = [faults[number % 5], faults[number % 3]]
    download_annotations(tmp_path / "coco", "val2014", server.url, QUICK)
    assert download_images(tmp_path / "coco", "val2014", IDS, server.url, QUICK).downloaded == 30
    for path in CocoFolder(tmp_path / "coco").image_paths(IDS):
        assert path.read_bytes() == server.files[f"/val2014/{path.name}"]


def test_missing_images_are_named_and_the_others_kept(server, tmp_path):
    for number in (5, 6):
        del server.files[f"/val2014/COCO_val2014_{number:012d}.jpg"]
    with pytest.raises(KvtuneError) as error:
        download_images(tmp_path / "coco", "val2014", IDS, server.url, QUICK)
    message = str(error.value)
    assert message.startswith("2 of 30 images could not be had")
    assert f"{server.url}/val2014/COCO_val2014_000000000005.jpg: 404 Not Found" in message
    assert "check that these ids are of val2014" in message
    assert len(names(tmp_path / "coco" / "val2014")) == 28
    assert server.requests["/val2014/COCO_val2014_000000000005.jpg"] == 1


def test_one_image_that_always_fails_does_not_stop_the_others(server, tmp_path):
    server.faults["/val2014/COCO_val2014_000000000005.jpg"] = ["truncate"] * 100
    with pytest.raises(
        KvtuneError,
        match=r"1 of 30 images .*truncated.*run the command again for the rest, or choose another --base-url",
    ):
        download_images(tmp_path / "coco", "val2014", IDS, server.url, QUICK)
    assert len(names(tmp_path / "coco" / "val2014")) == 29
    server.faults.clear()
    assert download_images(tmp_path / "coco", "val2014", IDS, server.url, QUICK) == Fetched(1, 29)


def test_server_that_is_down_is_not_asked_for_every_image(server, tmp_path):
    for number in IDS:
        server.faults[f"/val2014/COCO_val2014_{number:012d}.jpg"] = [503] * 100
    with pytest.raises(KvtuneError, match="30 of 30 images could not be had"):
        download_images(tmp_path / "coco", "val2014", IDS, server.url, QUICK, workers=2)
    assert len(server.requests) <= 6


def test_damaged_archive_is_deleted(server, tmp_path):
    whole = server.files[ARCHIVE]
    place = whole.index(b"captions_val2014.json") + 40
    for damaged in (whole[:place] + b"\0" * 50 + whole[place + 50 :], b"<html>Please log in</html>"):
        server.files[ARCHIVE] = damaged
        with pytest.raises(KvtuneError, match=r"annotations_trainval2014\.zip came damaged .* run the command again"):
            download_annotations(tmp_path / "coco", "val2014", server.url, QUICK)
        assert not list((tmp_path / "coco" / "annotations").glob("*.zip*"))
    server.files[ARCHIVE] = whole
    assert len(download_annotations(tmp_path / "coco", "val2014", server.url, QUICK)) >= 1
    assert names(tmp_path / "coco" / "annotations") == ["captions_val2014.json", "instances_val2014.json"]


def test_archive_is_kept_until_its_files_are_out(server, tmp_path):
    """Where a file cannot be written, the next run does not download again."""
    blocked = tmp_path / "coco" / "annotations" / "instances_val2014.json"
    blocked.mkdir(parents=True)
    with pytest.raises(KvtuneError, match=r"cannot write .*instances_val2014\.json"):
        download_annotations(tmp_path / "coco", "val2014", server.url, QUICK)
    blocked.rmdir()
    download_annotations(tmp_path / "coco", "val2014", server.url, QUICK)
    assert server.requests[ARCHIVE] == 1
    assert names(blocked.parent) == ["captions_val2014.json", "instances_val2014.json"]


def test_one_process_at_a_time(server, tmp_path):
    folder = tmp_path / "coco" / "annotations"
    folder.mkdir(parents=True)
    with (folder / ".download.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(RequestError, match=r"another download to .* is running"):
            download_annotations(tmp_path / "coco", "val2014", server.url, QUICK)
    assert len(download_annotations(tmp_path / "coco", "val2014", server.url, QUICK)) == 2


def test_bad_requests(tmp_path):
    with pytest.raises(RequestError, match=r"unknown COCO split 'test2014'; choose from val2014"):
        download_images(tmp_path, "test2014", [1])
    with pytest.raises(RequestError, match="unknown COCO split"):
        download_annotations(tmp_path, "../val2014")
    for url in ("file:///etc", "images.cocodataset.org", ""):
        with pytest.raises(RequestError, match="is no web address"):
            check_base_url(url)
    assert check_base_url("https://mirror/coco/") == "https://mirror/coco"


def test_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(KvtuneError, match="cannot write"):
        download_annotations(tmp_path / "file", "val2014", server.url, QUICK)
    with pytest.raises(KvtuneError, match="cannot write"):
        download_images(tmp_path / "file", "val2014", [1], server.url, QUICK)


@functools.cache
def bomb(name: str, content: bytes, **settings) -> bytes:
    """An archive of the annotations with one of its files replaced."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **{"compression": zipfile.ZIP_DEFLATED} | settings) as archive:
        archive.writestr(f"annotations/{name}", content)
    return buffer.getvalue()


def patched(archive: bytes, at: int, value: int) -> bytes:
    """An archive with two bytes of every file's headers replaced: at 6 flags, at 8 compression (APPNOTE, 4.3.7)."""
    for sign, shift in ((b"PK\3\4", 0), (b"PK\1\2", 2)):
        place = archive.find(sign)
        while place >= 0:
            begin = place + at + shift
            archive = archive[:begin] + value.to_bytes(2, "little") + archive[begin + 2 :]
            place = archive.find(sign, begin)
    return archive


def bad_archives(whole: bytes) -> dict[str, tuple[bytes, str]]:
    name, text = "instances_val2014.json", b'{"images": [], "annotations": []}'
    end = whole.rindex(b"PK\5\6")
    return {
        "bomb": (bomb(name, b" " * 50_000_000), "would have 48 MiB"),
        "encrypted": (patched(whole, 6, 1), "instances_val2014.json is encrypted"),
        "unknown compression": (patched(whole, 8, 99), "compression 99"),
        "lzma": (bomb(name, text * 100, compression=zipfile.ZIP_LZMA), "compression 14"),
        "no JSON": (bomb(name, b"{} and more" * 10, compression=zipfile.ZIP_STORED), "not valid JSON"),
        "cut JSON": (bomb(name, b'{"images": [{"id": 1', compression=zipfile.ZIP_STORED), "cut off"),
        "no images": (bomb(name, text), "it has no images"),
        "deep": (bomb(name, b'{"images": ' + b"[" * 200_000, compression=zipfile.ZIP_STORED), "nested"),
        "other files": (bomb("other.json", text), "no item named"),
        "directory": (whole[:end] + whole[end : end + 12] + b"\xff\xff\xff\x7f" + whole[end + 16 :], "list of files"),
        "cut": (whole[: len(whole) // 2], "not a zip file"),
        "control characters": (bomb(name, b'{"\x1b[31m'), "not valid JSON"),
    }


@pytest.mark.parametrize("kind", bad_archives(b"PK\5\6" + bytes(18)))
def test_a_bad_archive_never_stays(server, tmp_path, kind):
    """It is refused as it comes, nothing of it is left, and the next run fetches it anew."""
    whole = server.files[ARCHIVE]
    server.files[ARCHIVE], said = bad_archives(whole)[kind]
    folder = tmp_path / "coco" / "annotations"
    with pytest.raises(KvtuneError, match=rf"trainval2014\.zip came damaged .*{said}.* run the command again"):
        download_annotations(tmp_path / "coco", "val2014", server.url, QUICK)
    assert names(folder) == []
    assert sorted(path.name for path in folder.iterdir()) == [".download.lock"]
    server.files[ARCHIVE] = whole
    assert len(download_annotations(tmp_path / "coco", "val2014", server.url, QUICK)) == 2
    assert CocoFolder(tmp_path / "coco").image_ids("val2014") == IDS


def test_an_archive_that_is_too_large_is_not_taken(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "MOST_ARCHIVE", 1000)
    with pytest.raises(KvtuneError, match="more than 0 MiB, which no such file has"):
        download_annotations(tmp_path / "coco", "val2014", server.url, QUICK)
    assert names(tmp_path / "coco" / "annotations") == []


def picture(size: tuple[int, int], kind: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.new("L", size).save(buffer, kind)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lambda: picture((4_000, 4_000)), "4000 by 4000 pixels"),
        (lambda: picture((20, 20), "PNG"), "not an image"),
        (lambda: picture((20, 20)) + bytes(5_000_000), "more than 4 MiB"),
        (lambda: b"", "not an image"),
    ],
    ids=["pixels", "format", "bytes", "empty"],
)
def test_a_bad_image_never_stays(server, tmp_path, content, said):
    path = "/val2014/COCO_val2014_000000000005.jpg"
    whole, server.files[path] = server.files[path], content()
    with pytest.raises(KvtuneError, match=said):
        download_images(tmp_path / "coco", "val2014", [4, 5], server.url, QUICK)
    assert names(tmp_path / "coco" / "val2014") == ["COCO_val2014_000000000004.jpg"]
    server.files[path] = whole
    assert download_images(tmp_path / "coco", "val2014", [4, 5], server.url, QUICK) == Fetched(1, 1)


MEASURED = """
import sys
from pathlib import Path
from kvtune.coco import CocoFolder, download
from kvtune.coco.download import download_annotations, download_images
from kvtune.coco.fetch import Patience
from kvtune.errors import KvtuneError
root, url = Path(sys.argv[1]), sys.argv[2]
for step in (lambda: download_annotations(root, "val2014", url, Patience(2, 0.01)),
             lambda: download_images(root, "val2014", range(100, 132), url, Patience(2, 0.01))):
    try:
        step()
    except KvtuneError as error:
        print(error)
if len(sys.argv) > 3:
    print(len(CocoFolder(root).categories([1])[1]))
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def measured(*arguments: object) -> tuple[list[str], int]:
    """What a download says, and the most memory that its process had, in MB."""
    ran = subprocess.run(
        [sys.executable, "-c", MEASURED, *map(str, arguments)], capture_output=True, text=True, timeout=300, check=True
    )
    *said, peak = ran.stdout.splitlines()
    return said, int(peak) // 1024


@pytest.mark.slow
def test_memory_stays_small_whatever_is_sent(server, tmp_path):
    """Zeros that unpack a thousandfold; images of 144 million pixels, and large ones that do no harm, all at once."""
    server.files[ARCHIVE] = bomb("instances_val2014.json", b" " * 300_000_000)
    for number, content in enumerate(
        (picture((12_000, 12_000)), picture((1400, 1400)), bytes(8_000_000), b"\xff\xd8" * 10**6)
    ):
        for image in range(number, 32, 4):
            server.files[f"/val2014/COCO_val2014_{100 + image:012d}.jpg"] = content
    said, peak = measured(tmp_path / "coco", server.url)
    assert "would have 286 MiB" in said[0] and "images could not be had" in said[1]
    assert peak < 500


@pytest.mark.slow
def test_memory_stays_small_where_annotations_are_as_large_as_cocos(server, tmp_path):
    """150 MB of polygons, as in instances_val2014.json."""
    polygon = ",".join(f"{number % 640}.{number % 100:02d}" for number in range(80))
    image = '{"id": 1, "file_name": "COCO_val2014_000000000001.jpg", "width": 640, "height": 480}'
    records = ",".join(
        f'{{"segmentation": [[{polygon}]], "area": {number}.5, "iscrowd": 0, "image_id": 1, "bbox": [1, 2, 3.5, 4], '
        f'"category_id": {1 + number % 80}, "id": {number}}}'
        for number in range(250_000)
    )
    categories = ",".join(f'{{"id": {number}, "name": "c{number}"}}' for number in range(1, 81))
    text = f'{{"images": [{image}], "annotations": [{records}], "categories": [{categories}]}}'
    assert len(text) > 120_000_000
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("annotations/instances_val2014.json", text)
        archive.writestr("annotations/captions_val2014.json", f'{{"images": [{image}], "annotations": []}}')
    server.files[ARCHIVE] = buffer.getvalue()
    said, peak = measured(tmp_path / "coco", server.url, "read")
    assert said[-1] == "80"
    assert peak < 500
