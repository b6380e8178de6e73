"""The captions of one trial on disk: paid for once, kept for good."""

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kvtune.errors import KvtuneError
from kvtune.files import write_bytes, write_text
from kvtune.json_files import decode, parse_json
from kvtune.study.jsonl import LineWriter, each_line
from kvtune.text import json_text, quoted

CAPTION_KEYS = ("image_id", "caption", "tokens", "finish_reason")
FINISH_REASONS = ("eos", "length", "stop")

ImageId = int | str
"""What a caption line calls its image: COCO's id, or outside of studies a name."""


def read_captions(path: Path) -> dict[int, dict[str, Any]]:
    """Read a caption file: image id to its line, in the order of the file.

    A file that does not exist has no captions, and a last line that was cut short counts as not there.

    Raises
    ------
    KvtuneError
        If a line is not a caption line, or an image has two.
    """
    return {line["image_id"]: line for line in _each_caption(path)}


def tokens_of(path: Path) -> dict[ImageId, int]:
    """The images of a caption file, by id or name, and how many tokens their captions have.

    Raises
    ------
    KvtuneError
        As :func:`read_captions` does.
    """
    return {line["image_id"]: line["tokens"] for line in _each_caption(path, named=True)}


def captions_of(path: Path, image_ids: Sequence[int]) -> list[dict[str, Any]]:
    """The captions of these images from a caption file, in the order of the images.

    Raises
    ------
    KvtuneError
        If one is missing or the file cannot be read.
    """
    captions = read_captions(path)
    missing = [image_id for image_id in image_ids if image_id not in captions]
    if missing:
        raise KvtuneError(f"{path} has no caption of image {missing[0]} ({len(missing)} missing); restore the file")
    return [captions[image_id] for image_id in image_ids]


def captions_sha256(captions: Iterable[Mapping[str, Any]]) -> str:
    """SHA-256, in hexadecimal, of caption lines in their order: one JSON list of the four values a line."""
    digest = hashlib.sha256()
    for line in captions:
        digest.update(json.dumps([line[key] for key in CAPTION_KEYS]).encode() + b"\n")
    return digest.hexdigest()


def salvage(path: Path, keep: bool) -> None:
    """Put a damaged caption file aside as ``NAME.lost``, and keep those of its lines that are captions, if wanted.

    Raises
    ------
    KvtuneError
        If the folder cannot be written.
    """
    kept: dict[int, dict[str, Any]] = {}
    for raw in path.read_bytes().split(b"\n")[:-1] if keep else []:
        with contextlib.suppress(KvtuneError):
            line = parse_json(decode(raw, str(path)), str(path))
            _check(line, str(path))
            kept.setdefault(line["image_id"], line)
    aside = path.with_name(path.name + ".lost")
    write_bytes(aside, path.read_bytes())
    write_text(path, "".join(json_text(line) + "\n" for line in kept.values()))


def count_captions(path: Path) -> int:
    """How many captions a file has so far, without looking at them.

    Raises
    ------
    KvtuneError
        If it cannot be read.
    """
    try:
        return path.read_bytes().count(b"\n")
    except FileNotFoundError:
        return 0
    except OSError as error:
        raise KvtuneError(f"cannot read {path}: {error.strerror or error}") from None


class _Log:
    """A caption file while it is being written: what it holds already is read, a torn last line is cut off."""

    def __init__(self, path: Path, held: dict[Any, Any], named: bool) -> None:
        self._held, self._named = held, named
        self._writer = LineWriter(path)

    def append(self, image_id: Any, caption: str, tokens: int, finish_reason: str) -> None:
        """Append the caption of an image that has none yet, flushed before this returns."""
        line = {"image_id": image_id, "caption": caption, "tokens": tokens, "finish_reason": finish_reason}
        _check(line, str(self._writer.path), self._named)
        if image_id in self._held:
            raise ValueError(f"image {image_id} is captioned already in {self._writer.path}")
        self._writer.append(line)
        self._held[image_id] = self._kept(line)

    def _kept(self, line: dict[str, Any]) -> Any:
        """What is kept of a line in memory."""
        raise NotImplementedError

    def __contains__(self, image_id: ImageId) -> bool:
        return image_id in self._held

    def __len__(self) -> int:
        return len(self._held)

    def close(self) -> None:
        """Wait until all captions are on the disk and close the file."""
        self._writer.sync()
        self._writer.close()


class CaptionLog(_Log):
    """The caption file of one trial while it is being written.

    Raises
    ------
    KvtuneError
        If the file cannot be read or written, or holds something else than caption lines.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, read_captions(path), named=False)

    def _kept(self, line: dict[str, Any]) -> dict[str, Any]:
        return line

    def __getitem__(self, image_id: int) -> dict[str, Any]:
        found: dict[str, Any] = self._held[image_id]
        return found

    @property
    def image_ids(self) -> list[int]:
        """The images that have their caption, in the order of the file."""
        return list(self._held)

    def has_all(self, image_ids: Iterable[int]) -> bool:
        """Whether every one of these images has its caption."""
        return all(image_id in self._held for image_id in image_ids)


class NamedLog(_Log):
    """A file of captions of any number of images, by id or name, while it is being written.

    As :class:`CaptionLog`; of what it holds, only the images and their captions' tokens are kept in memory.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path, tokens_of(path), named=True)

    def _kept(self, line: dict[str, Any]) -> int:
        return int(line["tokens"])

    @property
    def tokens(self) -> Mapping[ImageId, int]:
        """Tokens of each caption."""
        return self._held


def _each_caption(path: Path, named: bool = False) -> Iterator[dict[str, Any]]:
    """The lines of a caption file, checked, one an image; ``named``: an image may have a name instead of an id."""
    seen: set[ImageId] = set()
    for number, line in enumerate(each_line(path), 1):
        place = f"{path} line {number}"
        _check(line, place, named)
        if line["image_id"] in seen:
            raise KvtuneError(f"{place}: image {line['image_id']} has a caption already; remove one of the two")
        seen.add(line["image_id"])
        yield line


def _check(line: Any, place: str, named: bool = False) -> None:
    if not isinstance(line, dict):
        raise KvtuneError(f"{place} is not a JSON object; remove that line to go on without it")
    for key in line:
        if key not in CAPTION_KEYS:
            raise KvtuneError(f"{place}: unknown key {quoted(key)}; a caption line has {', '.join(CAPTION_KEYS)}")
    for key in CAPTION_KEYS:
        if key not in line:
            raise KvtuneError(f"{place}: the key {quoted(key)} is missing")
    numbers = ("tokens",) if named and isinstance(line["image_id"], str) else ("image_id", "tokens")
    whole = all(isinstance(line[key], int) and not isinstance(line[key], bool) for key in numbers)
    if not whole or not isinstance(line["caption"], str):
        raise KvtuneError(f"{place}: image_id and tokens must be whole numbers and caption a text")
    if line["finish_reason"] not in FINISH_REASONS:
        raise KvtuneError(f"{place}: finish_reason must be one of {', '.join(FINISH_REASONS)}")
