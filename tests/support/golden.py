"""The commands that read a recorded study, and what they print as far as it does not depend on machine and day."""

import csv
import json
import os
import re
import shutil
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

RECORDED = Path(__file__).resolve().parent.parent / "golden"
"""``studies/`` and ``reproductions/`` with all captions that the commands want, and their output in ``expected/``."""

SCENES = 16
PAPER_SCENES = 8

REPRODUCE = ("--models", "demo", "--images", str(PAPER_SCENES))
COMMANDS: dict[str, tuple[str, ...]] = {
    "validate": ("validate", "demo"),
    "pareto": ("pareto", "demo"),
    "pareto-knee": ("pareto", "other", "--select", "knee"),
    "sensitivity": ("sensitivity", "demo"),
    "export": ("export", "demo", "--out", "preset.json"),
    "export-max-f1": ("export", "other", "--select", "max-f1", "--out", "other.json"),
    "compare": ("compare", "demo", "other"),
    "studies": ("studies",),
    "rescore": ("rescore", "demo"),
    "score": ("score", "studies/demo/captions/baseline.jsonl", "--ground-truth", "studies/demo/ground_truth.json"),
    "reproduce-table1": ("reproduce", "table1", *REPRODUCE),
    "reproduce-table4": ("reproduce", "table4", *REPRODUCE),
}
"""By the name of the file with the output. Each is run in a copy of the folder, after ``validate``."""

FILES = {
    "trials": ("studies/demo/report/trials.csv", ("pareto", "demo", "--parquet")),
    "outcomes": ("studies/other/report/outcomes.csv", ("pareto", "other", "--outcomes")),
    "preset": ("preset.json", COMMANDS["export"]),
    "table4": ("reproductions/demo/table4.csv", COMMANDS["reproduce-table4"]),
}
"""Files that a command writes besides: the name of the expected one, its path, the command."""

_MACHINE = ("versions", "created", "updated", "device", "lanes")
"""Keys whose values tell of the machine or the day."""


def copied(to: Path) -> Path:
    """A copy of the recorded folders, in which commands may write."""
    for name in ("studies", "reproductions"):
        shutil.copytree(RECORDED / name, to / name)
    for path in (to / "studies").rglob("*"):
        os.utime(path, (0, 60 * ("demo" in path.parts)))  # the latest study, whatever a checkout did
    return to


def plain(document: Any) -> Any:
    """A document without what depends on machine and day; numbers to ten digits."""
    if isinstance(document, dict):
        return {key: "..." if key in _MACHINE else plain(value) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [plain(value) for value in document]
    return float(f"{document:.10g}") if isinstance(document, float) else document


def read(path: Path) -> Any:
    """A JSON file, or the cells of a table, as :func:`plain` gives them."""
    text = path.read_text("utf-8")
    if path.suffix == ".json":
        return plain(json.loads(text))
    return plain([[_cell(cell) for cell in row] for row in csv.reader(StringIO(text))])


def _cell(text: str) -> str | float:
    return float(text) if re.fullmatch(r"-?\d+\.\d+(e-?\d+)?", text) else text


def captions(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every caption file below a folder."""
    for path in sorted(folder.rglob("captions/**/*.jsonl")):
        yield str(path.relative_to(folder)), path.read_bytes()
