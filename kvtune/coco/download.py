"""COCO's annotations, and only the images that are needed, from its server or a mirror."""

import contextlib
import os
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from threading import Event
from typing import IO

from kvtune.coco.annotations import read_annotations
from kvtune.coco.fetch import USUAL, FetchError, Patience, Progress, fetch_bytes, fetch_file
from kvtune.coco.images import problem_with
from kvtune.coco.layout import KINDS, Kind, annotation_name, check_source, find_any_image, has_annotations, image_name
from kvtune.errors import KvtuneError, RequestError
from kvtune.files import remove_leftovers, replacing, write_bytes
from kvtune.locks import locked_file
from kvtune.text import quoted

BASE_URL = "http://images.cocodataset.org"
"""COCO's own server (cocodataset.org, "Download"); mirrors use the same paths below theirs."""

MOST_ARCHIVE = 2**30
"""Bytes of an archive of annotations; COCO's have 253 million."""

MOST_ANNOTATIONS = 2**30
"""Bytes of one file in it; COCO's largest has 470 million."""

MOST_RATIO = 100
"""Bytes of a file for one in the archive; COCO's have 4 to 12."""

MOST_DIRECTORY = 2**20
"""Bytes of an archive's own list of files; COCO's have six files."""

MOST_IMAGE = 2**22
"""Bytes of an image; COCO's largest has less than a million."""

MOST_PIXELS = 2_000_000
"""Pixels of an image; COCO's have 640 by 640 at most."""


@dataclass(frozen=True)
class Fetched:
    """Images that were downloaded, and images that were there already."""

    downloaded: int
    present: int


def check_base_url(url: str) -> str:
    """Return ``url`` without a slash at its end.

    Raises
    ------
    RequestError
        If it is no http or https address.
    """
    if not url.startswith(("http://", "https://")):
        raise RequestError(f"{quoted(url)} is no web address; write it as {BASE_URL}")
    return url.rstrip("/")


def download_annotations(
    root: Path,
    source: str,
    base_url: str = BASE_URL,
    patience: Patience = USUAL,
    on_progress: Progress = lambda done, total: None,
) -> list[Path]:
    """Fetch the instances and captions of a split, unless they are there.

    They come in one archive a year (241 MB), kept as ``*.zip.part`` while it downloads and removed once the files of
    this split are out of it.

    Parameters
    ----------
    on_progress
        Called with (bytes of the archive here, bytes in all).

    Returns
    -------
    list of Path
        The files that were written; empty if all were there.

    Raises
    ------
    RequestError
        If the split is unknown, or another download to this folder is running.
    KvtuneError
        If the archive could not be had or is damaged, or the folder cannot be written.
    """
    check_source(source)
    names = {kind: annotation_name(kind, source) for kind in KINDS if not has_annotations(root, kind, source)}
    if not names:
        return []
    archive = root / "annotations" / f"annotations_trainval{source[-4:]}.zip"
    url = f"{check_base_url(base_url)}/annotations/{archive.name}"
    with _one_download(archive.parent):
        if not archive.exists():
            try:
                fetch_file(url, archive, patience, MOST_ARCHIVE, on_progress)
            except FetchError as error:
                raise KvtuneError(f"{error}; run the command again, or choose another --base-url") from error
        try:
            for kind, name in names.items():
                _extract(archive, kind, name, root)
        except _BadArchiveError as error:
            archive.unlink()
            raise KvtuneError(
                f"{url} came damaged ({error}) and was deleted; run the command again, or choose another --base-url"
            ) from error
        archive.unlink()
    return [archive.parent / name for name in names.values()]


def download_images(
    root: Path,
    source: str,
    image_ids: Sequence[int],
    base_url: str = BASE_URL,
    patience: Patience = USUAL,
    on_progress: Progress = lambda done, total: None,
    workers: int = 16,
) -> Fetched:
    """Fetch images of a split, unless they are there and can be read.

    Parameters
    ----------
    root
        The COCO folder; images go to ``root/SOURCE/``.
    on_progress
        Called in the caller's thread with (images done, all images).
    workers
        Images in flight at once.

    Raises
    ------
    RequestError
        If the split is unknown.
    KvtuneError
        If some images could not be had; the message says how many and names the first. The others are there, and the
        same call goes on with the missing ones. After as many failures in a row as there are workers, none of them
        a plain "not found", the rest is not tried.
    """
    stop = Event()
    prefix = f"{check_base_url(base_url)}/{check_source(source)}"

    def fetch(image_id: int) -> bool:
        name = image_name(source, image_id)
        path = find_any_image(root, image_id) or root / source / name
        if path.exists() and problem_with(path) is None:
            return False
        check = lambda data: problem_with(BytesIO(data), MOST_PIXELS)  # noqa: E731
        data = fetch_bytes(f"{prefix}/{name}", patience, check, stop, MOST_IMAGE)
        write_bytes(path, data)
        return True

    downloaded = present = failures_in_a_row = 0
    failed: list[FetchError] = []
    with ThreadPoolExecutor(max_workers=workers) as pool:
        futures = [pool.submit(fetch, image_id) for image_id in image_ids]
        try:
            for done, future in enumerate(as_completed(futures), 1):
                try:
                    if future.result():
                        downloaded += 1
                    else:
                        present += 1
                    failures_in_a_row = 0
                except FetchError as error:
                    failed.append(error)
                    failures_in_a_row = 0 if error.final else failures_in_a_row + 1
                    if failures_in_a_row >= workers:
                        break
                on_progress(done, len(futures))
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
    if failed:
        missing = len(image_ids) - downloaded - present
        first = "; ".join(str(error) for error in failed[:3])
        cure = (
            f"check that these ids are of {source}, or choose a mirror with --base-url"
            if all(error.final for error in failed)
            else "run the command again for the rest, or choose another --base-url"
        )
        raise KvtuneError(
            f"{missing} of {len(image_ids)} images could not be had, the others are in {root}: {first}; {cure}"
        )
    return Fetched(downloaded, present)


class _BadArchiveError(Exception):
    """An archive is damaged, or not what it should be."""


def _extract(archive: Path, kind: Kind, name: str, root: Path) -> None:
    """Take an annotation file out of an archive, whole and checked, or not at all.

    What comes from a server may be made to harm: sizes are bounded before anything is read, and only the kinds of
    compression that COCO's archives have are read at all.
    """
    with replacing(archive.parent / name) as file:
        try:
            if _directory_bytes(archive) > MOST_DIRECTORY:
                raise _BadArchiveError("its list of files is too long")
            with zipfile.ZipFile(archive) as opened:
                member = opened.getinfo(f"annotations/{name}")
                if member.flag_bits & 1:
                    raise _BadArchiveError(f"{name} is encrypted")
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise _BadArchiveError(f"{name} has compression {member.compress_type}, which is unknown")
                if member.file_size > min(MOST_ANNOTATIONS, MOST_RATIO * member.compress_size):
                    raise _BadArchiveError(f"{name} would have {member.file_size / 2**20:.0f} MiB")
                source = opened.open(member)
        except _BadArchiveError:
            raise
        except Exception as error:  # zipfile's reader raises many kinds, depending on where a bad file trips it
            raise _BadArchiveError(str(error) or type(error).__name__) from error
        with source:
            while chunk := _read(source):
                file.write(chunk)
        file.flush()
        try:
            read_annotations(Path(file.name), kind, root)
        except RequestError as error:
            reason = str(error).partition("; delete")[0].replace(file.name, name)
            raise _BadArchiveError(reason) from error


def _read(source: IO[bytes]) -> bytes:
    try:
        return source.read(1 << 20)
    except Exception as error:  # as above
        raise _BadArchiveError(str(error) or type(error).__name__) from error


def _directory_bytes(archive: Path) -> int:
    """Bytes of a zip archive's directory, as its last record says (APPNOTE, section 4.3.16)."""
    with archive.open("rb") as file:
        file.seek(max(0, archive.stat().st_size - (1 << 16) - 22))
        end = file.read()
    place = end.rfind(b"PK\5\6")
    return int.from_bytes(end[place + 12 : place + 16], "little") if place >= 0 else 0


@contextlib.contextmanager
def _one_download(folder: Path) -> Iterator[None]:
    """Keep a second process from writing to the same archive; the lock ends with the process, however it ends."""
    try:
        lock = locked_file(folder / ".download.lock")
    except BlockingIOError:
        raise RequestError(f"another download to {folder} is running; wait for it") from None
    except OSError as error:
        raise KvtuneError(f"cannot write in {folder}: {error.strerror or error}; choose another folder") from error
    try:
        remove_leftovers(folder)
        yield
    finally:
        os.close(lock)
