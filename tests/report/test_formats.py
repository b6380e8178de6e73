"""The reference of files and JSON outputs leaves nothing out and names nothing that is not there."""

import inspect
import json
import pkgutil
import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from fake_search import fake_images
from scored_studies import HOLDOUT, fake_engine, scored_study
from small_coco import write_coco

from kvtune.chair import METRICS
from kvtune.cli.main import main, root
from kvtune.report.data.document import study_document, trial_document

REFERENCE = (Path(__file__).resolve().parents[2] / "docs" / "formats.md").read_text("utf-8").replace("`", "``")


def commands(group, words=()):
    for name, command in group.commands.items():
        yield (*words, name), command
        if hasattr(command, "commands"):
            yield from commands(command, (*words, name))


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda file: None)


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments)])
    assert not ended.value.code


def test_every_file_of_a_study_is_in_the_reference(tmp_path, monkeypatch, capsys):
    folder = scored_study(tmp_path / "studies" / "mine", trials=8)
    fake_engine(monkeypatch)
    write_coco(tmp_path / "coco", "val2014", [*HOLDOUT, *(image for image, _ in fake_images(40))])
    here = ("mine", "--studies-dir", tmp_path / "studies")
    run("validate", *here, "--coco", tmp_path / "coco")
    run("sensitivity", *here, "--coco", tmp_path / "coco", "--select", "min-chair", "--points", 2)
    parquet = ["--parquet"] if find_spec("pyarrow") else []
    run("pareto", *here, "--html", "--outcomes", *parquet)
    run("export", *here, "--select", "min-chair")
    for path in (path for path in folder.path.rglob("*") if path.is_file()):
        name = re.sub(r"trial-\d{4}", "trial-0007", str(path.relative_to(folder.path)))
        inside = re.match(r"presets/|captions/holdout/|captions/sensitivity/", name)
        stem = name.removeprefix("report/").rsplit(".", 1)[0]
        assert f"``{inside[0] if inside else name}``" in REFERENCE or (
            name.startswith("report/") and re.search(rf"``(report/)?{re.escape(stem)}\.", REFERENCE)
        ), f"{name} is not in the reference"


def test_every_json_output_is_in_the_reference():
    printing = [
        words for words, command in commands(root()) if any("--json" in parameter.opts for parameter in command.params)
    ]
    assert ("pareto",) in printing and ("data", "subset") in printing
    missing = [" ".join(words) for words in printing if f"``kvtune {' '.join(words)}``" not in REFERENCE]
    assert missing == []


def test_everything_that_the_reference_refers_to_exists():
    for name in re.findall(r"`(kvtune\.[\w.]+)`", REFERENCE):
        assert pkgutil.resolve_name(name).__doc__, name


def test_documents_have_the_keys_that_the_reference_names(tmp_path, capsys):
    scored_study(tmp_path / "studies" / "mine", trials=4)
    here = ("mine", "--studies-dir", tmp_path / "studies", "--json")
    run("export", *here, "--select", "min-chair")
    exported = json.loads(capsys.readouterr().out)
    assert list(exported) == ["out", "rule", "on", "trial", "preset"]
    preset = exported["preset"]
    shape = re.search(r'\{"schema_version": 1.*?"source"\}', REFERENCE, re.DOTALL)[0]
    assert re.findall(r'"(\w+)"', shape) == [
        key
        for name, value in preset.items()
        for key in [name, *(value if isinstance(value, dict) and name not in ("parameters", "versions") else [])]
    ]
    run("pareto", *here)
    document = json.loads(capsys.readouterr().out)
    promised = inspect.getdoc(study_document).split("Keys\n")[1]
    for key in document:
        assert re.search(rf"^[\w, ]*\b{key}\b", promised, re.MULTILINE), f"{key} is not documented"
    about_trials = trial_document.__doc__
    for key in document["trials"][0]:
        plain = ("number", "params", *METRICS, "state", "published")
        assert key in plain or f"``{key}``" in about_trials, f"{key} is not documented"
