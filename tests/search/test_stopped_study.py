"""A study with trials in work that nobody works on is stopped, and says how it goes on."""

import json
from pathlib import Path
from typing import Any

import pytest
from fake_search import FakeCaptioner, new_study, run_search

from kvtune.cli.main import main
from kvtune.study.lock import locked
from kvtune.study.study_folder import StudyFolder

pytestmark = pytest.mark.usefixtures("without_optuna")


class Stopped(FakeCaptioner):
    def finish(self, batch: list[Any]) -> Any:
        if len(self.batches) == 4:
            raise KeyboardInterrupt
        yield from super().finish(batch)


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    made, manifest = new_study(tmp_path / "studies" / "half", images=8)
    with pytest.raises(KeyboardInterrupt):
        run_search(made, manifest, 6, Stopped())
    return made


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit):
        main(list(words))
    return " ".join("".join(capsys.readouterr()).split())


def test_stopped_or_in_work(folder: StudyFolder, capsys: pytest.CaptureFixture[str]) -> None:
    studies = ["--studies-dir", str(folder.path.parent)]
    listing = said(capsys, "studies", *studies)
    assert "half stopped, 8" in listing and "4 in work" in listing
    assert "stopped, with 4 trials (4 in work)" in said(capsys, "pareto", "half", *studies)
    (listed,) = json.loads(said(capsys, "studies", "--json", *studies))
    assert (listed["trials"], listed["in_use"]) == ({"running": 4}, False)
    reason = json.loads(said(capsys, "pareto", "half", "--json", *studies))["chosen"]["reason"]
    assert "it is stopped and has 4 trials in work" in reason and "goes on" in reason and "first" not in reason
    assert "it is stopped and has 4 trials in work" in said(capsys, "validate", "half", *studies)
    with locked(folder.path):
        listing = said(capsys, "studies", *studies)
        assert "4 in work" in listing and "stopped" not in listing
        assert (
            "wait for the process" in json.loads(said(capsys, "pareto", "half", "--json", *studies))["chosen"]["reason"]
        )
