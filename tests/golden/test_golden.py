"""What the reading commands say of recorded studies is what they said when those were recorded.

A difference that is meant: ``python tests/golden/record.py``, and look at what git shows.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from golden import COMMANDS, FILES, RECORDED, captions, copied, plain, read

from kvtune.cli.main import main


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(tmp_path_factory.mktemp("golden"))


@pytest.fixture
def here(recorded: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """The copy, validated, as the current folder; no COCO data is to be found from it."""
    monkeypatch.chdir(recorded)
    monkeypatch.setenv("KVTUNE_COCO", "nowhere")
    if not Path("studies/demo/report/validation.json").exists():
        run(capsys, *COMMANDS["validate"])
    return recorded


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--json"])
    captured = capsys.readouterr()
    assert not end.value.code, captured.err
    return json.loads(captured.out)


@pytest.mark.parametrize("name", COMMANDS)
def test_printed(name: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert plain(run(capsys, *COMMANDS[name])) == read(RECORDED / "expected" / f"{name}.json")
    assert dict(captions(here)) == dict(captions(RECORDED))


@pytest.mark.parametrize("name", FILES)
def test_written(name: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, arguments = FILES[name]
    run(capsys, *arguments)
    assert read(here / path) == read(RECORDED / "expected" / f"{name}.json")


def test_the_same_captions_have_the_same_intervals_everywhere() -> None:
    score, pareto = (read(RECORDED / "expected" / f"{name}.json") for name in ("score", "pareto"))
    assert score["intervals"] == pareto["baseline"]["intervals"]
    (validated, *_) = pareto["validation"]["settings"]
    assert validated["tune"]["intervals"] == score["intervals"]
