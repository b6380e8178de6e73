"""The captions of a study packed for one HTML page."""

import base64
import gzip
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from kvtune.text import json_text

Mentions = Callable[[str], Iterable[tuple[int, int, str]]]
"""Caption -> (start, end, category) of every mention of an object, from left to right, in characters."""

Progress = Callable[[int, int], None]
"""Takes (done, total)."""

MOST_TEXT = 24_000_000
"""Bytes of different captions in one page: 50 trials of 500 images are about 12 million, a tenth of that packed."""


@dataclass(frozen=True)
class PackedCaptions:
    """Captions as the page reads them.

    Attributes
    ----------
    data
        Base64 of gzip of JSON: ``images`` (ids), ``truth`` (category numbers an image), ``categories``, ``texts``
        (different captions), ``spans`` (start, end, category number of each mention, flat, in UTF-16 units),
        ``captions`` (``baseline`` or trial number -> index into ``texts`` an image, -1 for none), ``thumbnails``
        (base64 JPEG an image), if wanted.
    note
        Which trials are left out, and why; empty where none is.
    """

    data: str
    note: str


def pack_captions(
    captions: Sequence[tuple[int | None, Mapping[int, str]]],
    ground_truth: Mapping[int, Iterable[str]],
    mentions: Mentions,
    thumbnail: Callable[[int], bytes] | None = None,
    on_progress: Progress = lambda done, total: None,
) -> PackedCaptions:
    """Pack captions; a text that occurs twice is stored once.

    Parameters
    ----------
    captions
        (trial number, or None for the baseline; image id -> caption), the most wanted trials first: what exceeds the
        room of a page is left out from the end.
    ground_truth
        Image id -> categories in the image. Images without one are left out.
    mentions
        Finds the objects that a caption names.
    thumbnail
        Makes the JPEG file of an image; None for a page without images.
    on_progress
        Called after each image.
    """
    kept: list[tuple[int | None, Mapping[int, str]]] = []
    different: dict[str, int] = {}
    room, left_out = MOST_TEXT, 0
    for number, texts in captions:
        fresh = {text for text in texts.values() if text not in different}
        size = sum(len(text.encode()) for text in fresh)
        if size > room:
            left_out += 1
            continue
        room -= size
        different |= dict.fromkeys(fresh, -1)
        kept.append((number, texts))

    images = [image for image in dict.fromkeys(i for _, texts in kept for i in texts) if image in ground_truth]
    categories: dict[str, int] = {}
    ordered: list[str] = []
    spans: list[list[int]] = []
    pictures: list[str] = []
    # Captions of one image stand side by side: they share most of their words, and gzip sees 32 KiB back.
    for done, image in enumerate(images, 1):
        if thumbnail is not None:
            pictures.append(base64.b64encode(thumbnail(image)).decode())
        for _, texts in kept:
            text = texts.get(image)
            if text is not None and different[text] < 0:
                different[text] = len(ordered)
                ordered.append(text)
                spans.append(_spans(text, mentions, categories))
        on_progress(done, len(images))
    truth = [[categories.setdefault(name, len(categories)) for name in sorted(ground_truth[i])] for i in images]
    document = {
        "images": images,
        "truth": truth,
        "categories": list(categories),
        "texts": ordered,
        "spans": spans,
        "captions": {
            "baseline" if number is None else str(number): [
                different[texts[image]] if image in texts else -1 for image in images
            ]
            for number, texts in kept
        },
    }
    if pictures:
        document["thumbnails"] = pictures
    packed = gzip.compress(json_text(document, separators=(",", ":")).encode(), 9, mtime=0)
    note = f"{left_out} of {len(captions)} sets of captions are left out to keep the page small" if left_out else ""
    return PackedCaptions(base64.b64encode(packed).decode(), note)


def _spans(text: str, mentions: Mentions, categories: dict[str, int]) -> list[int]:
    flat: list[int] = []
    for start, end, category in mentions(text):
        flat += [_utf16(text, start), _utf16(text, end), categories.setdefault(category, len(categories))]
    return flat


def _utf16(text: str, characters: int) -> int:
    """Browsers count UTF-16 units, Python characters."""
    return characters if text.isascii() else len(text[:characters].encode("utf-16-le", "surrogatepass")) // 2
