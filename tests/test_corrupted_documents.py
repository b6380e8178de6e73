"""Whatever a file holds, reading it ends in a value or in one line that names the file; never in anything else.

A structure-aware fuzzer over the readers of every format: a valid document gets one to three faults where its
structure is. ``KVTUNE_CASES=2000`` asks for more than CI does.
"""

import json
import os
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from corrupted import corrupted
from golden import RECORDED, copied

from kvtune.analysis.export import export
from kvtune.analysis.held_out import load_validation
from kvtune.analysis.overview import overviews
from kvtune.analysis.summarize import summarize
from kvtune.chair import load_ground_truth, read_captions_file
from kvtune.coco import Subset
from kvtune.errors import KvtuneError
from kvtune.presets import load_preset
from kvtune.reproduce.documents import ModelFolder, load_reproduction
from kvtune.spaces import load_space
from kvtune.study.caption_log import read_captions
from kvtune.study.study_folder import StudyFolder
from kvtune.text import json_text

CASES = int(os.environ.get("KVTUNE_CASES", "300"))
FOREIGN = re.compile(
    r"Value error|Input should|pydantic|Assertion|sqlalche|validation error|Traceback|\n", re.IGNORECASE
)


BARE = ("preset", "space")
"""Read without a fault, and then refused by the method, which knows of no file."""


def lines(path: Path) -> Any:
    return [json.loads(line) for line in path.read_text().splitlines()]


def write_lines(path: Path, document: bytes) -> None:
    """A list as JSON lines; whatever else it has become, as it is."""
    try:
        parts = json.loads(document)
        text = "".join(json.dumps(part) + "\n" for part in parts).encode() if isinstance(parts, list) else document
    except (ValueError, RecursionError):
        text = document.replace(b"}, {", b"}\n{").strip(b"[]") + b"\n"
    path.write_bytes(text)


def whole_study(folder: StudyFolder) -> None:
    """Everything that is said of a study."""
    json_text(str(summarize(folder)))
    export(folder, "min-chair")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(tmp_path_factory.mktemp("recorded"))


@pytest.fixture(scope="module")
def formats(folder: Path) -> dict[str, tuple[Path, Any, Callable[[Path, bytes], Any], Callable[[], Any]]]:
    """By name: the file, a valid document, how it is written, who reads it."""
    study = StudyFolder(folder / "studies" / "demo")
    other = folder / "file"
    reproduction = folder / "reproductions" / "demo"
    preset = json.loads((RECORDED / "expected" / "preset.json").read_text())
    validation = json.loads((RECORDED / "expected" / "validate.json").read_text())
    space = json.loads(study.manifest.read_text())["fingerprint"]["space"]
    captions = study.trial_captions(0)
    study.validation.parent.mkdir(exist_ok=True)
    plain = Path.write_bytes
    subset = Subset.of("s", "val2014", [3, 1, 2], 0).model_dump(mode="json")
    return {
        "study.json": (study.manifest, json.loads(study.manifest.read_text()), plain, lambda: whole_study(study)),
        "trials.jsonl": (study.ledger, lines(study.ledger), write_lines, lambda: whole_study(study)),
        "captions": (captions, lines(captions), write_lines, lambda: read_captions(captions)),
        "captions of a study": (captions, lines(captions), write_lines, lambda: whole_study(study)),
        "captions to score": (other, lines(captions), write_lines, lambda: read_captions_file(other)),
        "ground truth": (other, json.loads(study.ground_truth.read_text()), plain, lambda: load_ground_truth(other)),
        "validation.json": (study.validation, validation, plain, lambda: (load_validation(study), whole_study(study))),
        "preset": (other, preset, plain, lambda: load_preset(other).method()),
        "subset": (other, subset, plain, lambda: Subset.load(other)),
        "space": (other, space, plain, lambda: load_space(other).fitted(16)),
        "reproduction.json": (
            reproduction / "reproduction.json",
            json.loads((reproduction / "reproduction.json").read_text()),
            plain,
            lambda: load_reproduction(ModelFolder(reproduction)),
        ),
    }  # fmt: skip


NAMES = (
    "study.json", "trials.jsonl", "captions", "captions of a study", "captions to score", "ground truth",
    "validation.json", "preset", "subset", "space", "reproduction.json",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_reading_ends_in_a_value_or_in_a_line(formats: dict[str, Any], name: str) -> None:
    path, document, write, read = formats[name]
    before = path.read_bytes() if path.exists() else None
    draw = random.Random(name)
    refused = 0
    try:
        for case in range(CASES // len(NAMES) + 1):
            data = corrupted(document, draw)
            write(path, data)
            try:
                read()
            except KvtuneError as error:
                refused += 1
                message = str(error)
                assert not FOREIGN.search(message), (case, message[:300])
                assert len(message) < 1000, (case, message[:300])
                assert path.name in message or "demo" in message or name in BARE, (case, message)
            except Exception as error:
                raise AssertionError(f"case {case}: {data[:2000]!r}") from error
    finally:
        if before is None:
            path.unlink(missing_ok=True)
        else:
            path.write_bytes(before)
    assert refused > 0 or name == "captions of a study", "whose notes say what is wrong"


def test_an_unreadable_study_takes_no_list_down(folder: Path, formats: dict[str, Any]) -> None:
    """Each study that cannot be read has its line, and the other one is there as before."""
    draw = random.Random(1)
    for name in ("study.json", "trials.jsonl"):
        path, document, write, _ = formats[name]
        before = path.read_bytes()
        for _ in range(CASES // 40):
            write(path, corrupted(document, draw))
            found = {each.study: each for each in overviews(folder / "studies")}
            assert set(found) == {"demo", "other"}
            assert found["other"].problem is None and found["other"].trials
        path.write_bytes(before)
    captions = StudyFolder(folder / "studies" / "demo").trial_captions(3)
    captions.unlink(missing_ok=True)
    captions.mkdir()
    (problem,) = (each.problem for each in overviews(folder / "studies") if each.study == "demo")
    assert problem is not None and "trial-0003.jsonl" in problem


@pytest.mark.parametrize("number", ["NaN", "1e999"])
@pytest.mark.parametrize("key", ["chair_s", "value"])
def test_no_score_or_difference_is_infinite_or_no_number(tmp_path: Path, key: str, number: str) -> None:
    text = (RECORDED / "expected" / "validate.json").read_text()
    folder = StudyFolder(tmp_path / "s")
    folder.validation.parent.mkdir(parents=True)
    folder.validation.write_text(re.sub(rf'("{key}": )[-\d.]+', rf"\g<1>{number}", text, count=1))
    with pytest.raises(KvtuneError, match=rf"{key}.*must be a finite number"):
        load_validation(folder)
