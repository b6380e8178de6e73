"""Record again what the commands print: ``python tests/golden/record.py``, and with ``--captions`` the studies too.

The first is for a change of what is printed, the second for one of the demo, its model or the files of a study.
"""

import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "support"))

from golden import COMMANDS, FILES, RECORDED, REPRODUCE, SCENES, copied, plain, read

from kvtune.cli.main import main

SEARCH = ("search", "--model", "demo", "--images", str(SCENES), "--holdout-images", str(SCENES))
CAPTIONING = (
    (*SEARCH, "--study", "demo", "--trials", "8"),
    (*SEARCH, "--study", "other", "--trials", "4", "--sampler", "random", "--seed", "3", "--min-f1", "baseline-4"),
    ("validate", "demo"),
    ("sensitivity", "demo"),
    ("reproduce", "table1", *REPRODUCE),
    ("reproduce", "table4", *REPRODUCE),
)
KEPT = ("study.json", "trials.jsonl", "ground_truth.json", "reproduction.json", "captions")


def printed(*arguments: str) -> Any:
    """Run a command here and return the document that it prints."""
    stdout = io.StringIO()
    try:
        with contextlib.redirect_stdout(stdout):
            main([*arguments, "--json"])
    except SystemExit as end:
        if end.code:
            raise
    return json.loads(stdout.getvalue())


def record_captions() -> None:
    """Search, validate and reproduce in the current folder, and keep of it what the commands need."""
    for arguments in CAPTIONING:
        printed(*arguments)
    for name in ("studies", "reproductions"):
        shutil.rmtree(RECORDED / name, ignore_errors=True)
        for folder in Path(name).iterdir():
            for kept in filter(Path.exists, (folder / each for each in KEPT)):
                to = RECORDED / kept
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copytree(kept, to) if kept.is_dir() else shutil.copy(kept, to)
    for path in [*RECORDED.rglob("study.json"), *RECORDED.rglob("reproduction.json")]:
        manifest = json.loads(path.read_text("utf-8"))
        path.write_text(json.dumps(manifest | {"coco": "coco"}, indent=2, ensure_ascii=False) + "\n", "utf-8")


def record_outputs() -> None:
    """Run the commands in the current folder and keep what they print and write."""
    expected = RECORDED / "expected"
    shutil.rmtree(expected, ignore_errors=True)
    expected.mkdir()
    documents = {name: plain(printed(*arguments)) for name, arguments in COMMANDS.items()}
    for name, (path, arguments) in FILES.items():
        printed(*arguments)
        documents[name] = read(Path(path))
    for name, document in documents.items():
        (expected / f"{name}.json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    if "--captions" in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
            record_captions()
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(copied(Path(folder))):
        os.environ["KVTUNE_COCO"] = "nowhere"
        record_outputs()
