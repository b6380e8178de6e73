"""COCO's annotations, and only the images that are needed, from its server or a mirror."""

import contextlib
import fcntl
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from threading import Event

from kvtune.coco.fetch import FetchError, Patience, Progress, fetch_bytes, fetch_file
from kvtune.coco.images import problem_with
from kvtune.coco.layout import KINDS, annotation_name, check_source, find_any_image, has_annotations, image_name
from kvtune.errors import KvtuneError, RequestError
from kvtune.files import write_bytes
from kvtune.text import quoted

BASE_URL = "http://images.cocodataset.org"
"""COCO's own server (cocodataset.org, "Download"); mirrors use the same paths below theirs."""


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
    patience: Patience | None = None,
    on_progress: Progress | None = None,
) -> list[Path]:
    """Fetch the instances and captions of a split, unless they are there.

    They come in one archive a year (241 MB), kept as ``*.zip.part`` while it downloads and removed once the files of
    this split are out of it.

    Parameters
    ----------
    root
        The COCO folder.
    source
        The split.
    base_url
        Server.
    patience
        How often to try again.
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
    names = [annotation_name(kind, check_source(source)) for kind in KINDS if not has_annotations(root, kind, source)]
    if not names:
        return []
    archive = root / "annotations" / f"annotations_trainval{source[-4:]}.zip"
    url = f"{check_base_url(base_url)}/annotations/{archive.name}"
    with _one_download(archive.parent):
        if not archive.exists():
            fetch_file(url, archive, patience or Patience(), on_progress)
        try:
            with zipfile.ZipFile(archive) as opened:
                for name in names:
                    write_bytes(archive.parent / name, opened.read(f"annotations/{name}"))
        except (zipfile.BadZipFile, zlib.error, EOFError, KeyError) as error:
            archive.unlink()
            raise KvtuneError(
                f"{url} came damaged ({error}) and was deleted; run the command again, or choose another --base-url"
            ) from error
        archive.unlink()
    return [archive.parent / name for name in names]


def download_images(
    root: Path,
    source: str,
    image_ids: Sequence[int],
    base_url: str = BASE_URL,
    patience: Patience | None = None,
    on_progress: Progress | None = None,
    workers: int = 16,
) -> Fetched:
    """Fetch images of a split, unless they are there and can be read.

    Parameters
    ----------
    root
        The COCO folder; images go to ``root/SOURCE/``.
    source
        The split.
    image_ids
        Which images.
    base_url
        Server.
    patience
        How often to try again.
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
        data = fetch_bytes(f"{prefix}/{name}", patience or Patience(), lambda data: problem_with(BytesIO(data)), stop)
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
                if on_progress:
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
            else "run the command again for the rest"
        )
        raise KvtuneError(
            f"{missing} of {len(image_ids)} images could not be had, the others are in {root}: {first}; {cure}"
        )
    return Fetched(downloaded, present)


@contextlib.contextmanager
def _one_download(folder: Path) -> Iterator[None]:
    """Keep a second process from writing to the same archive; the lock ends with the process, however it ends."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / ".download.lock").open("w")
    except OSError as error:
        raise KvtuneError(f"cannot write in {folder}: {error.strerror or error}; choose another folder") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RequestError(f"another download to {folder} is running; wait for it") from None
        yield
