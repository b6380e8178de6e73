"""The tables of docs/chair.md are what the reader does."""

import re
from pathlib import Path

import pytest

from kvtune.chair import CaptionReader
from kvtune.chair.cleaning import Cleaning

DOCUMENT = Path(__file__).parents[2] / "docs" / "chair.md"
ROWS = [
    [cell.strip().replace(r"\|", "|") for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    for line in DOCUMENT.read_text(encoding="utf-8").splitlines()
    if line.startswith("| `")
]
READER = CaptionReader()


def mentions(text):
    return ", ".join(READER.read(text).mentions)


@pytest.mark.parametrize(("caption", "expected"), [(row[0], row[1]) for row in ROWS if len(row) == 3])
def test_the_classic_reading(caption, expected):
    assert mentions(caption.strip("`")) == expected


@pytest.mark.parametrize(("caption", "as_written", "cut"), [row[:3] for row in ROWS if len(row) == 4])
def test_what_is_cut_first(caption, as_written, cut):
    assert mentions(Cleaning(as_written=True)(caption.strip("`"))) == as_written
    assert mentions(Cleaning()(caption.strip("`"))) == cut


def test_both_tables_are_there():
    assert {len(row) for row in ROWS} == {3, 4} and len(ROWS) > 15
