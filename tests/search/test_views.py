"""What is shown while a search runs, and in the list of studies."""

import io
from pathlib import Path

import pytest
from fake_search import new_study, run_search
from rich.console import Console

from kvtune.analysis.overview import overviews
from kvtune.analysis.summarize import summarize
from kvtune.search import view
from kvtune.search.view import PlainView, View

pytestmark = pytest.mark.usefixtures("without_optuna")


def console(width: int = 120) -> Console:
    return Console(file=io.StringIO(), width=width, color_system=None)


def shown(used: Console) -> str:
    assert isinstance(used.file, io.StringIO)
    return used.file.getvalue()


def test_plain_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "PLAIN_SECONDS", 0.0)
    folder, manifest = new_study(tmp_path / "s", images=5)
    used = console(width=40)
    run_search(folder, manifest, 3, view=PlainView(used))
    lines = shown(used).splitlines()
    assert lines[0] == "20 captions to write, 0 trials finished"
    assert any(
        line.startswith("20 of 20 captions, ") and line.endswith(" tokens a second, 0:00:00 to go") for line in lines
    )
    baseline = summarize(folder).baseline
    assert baseline is not None
    assert f"baseline: CHAIR_S {baseline.rate('chair_s'):.1f}, F1 {baseline.rate('f1'):.1f}" in lines
    first = next(line for line in lines if line.startswith("trial 0: "))
    assert first.endswith("on the front  (lambda_ref=0.7 queue_length=15 clip_width=0.2 start_layer=1 end_layer=7)")
    assert len([line for line in lines if line.startswith("trial ")]) == 3


def test_the_rest_of_a_search_is_what_remains_to_be_written(tmp_path: Path) -> None:
    folder, manifest = new_study(tmp_path / "s", images=5)
    run_search(folder, manifest, 3)
    used = console()
    run_search(folder, manifest, 7, view=PlainView(used))
    assert shown(used).splitlines()[0] == "20 captions to write, 3 trials finished"


def test_images_being_checked() -> None:
    used = console()
    with PlainView(used).making_ready() as show:
        show("loading demo", 0, 0)
        for done in range(1, 8):
            show("images checked", done, 7)
    assert shown(used) == "images checked: 7 of 7\n"


def test_no_view_says_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, manifest = new_study(tmp_path / "s", images=3)
    run_search(folder, manifest, 2, view=View())
    assert capsys.readouterr() == ("", "")


def test_studies_on_disk(tmp_path: Path) -> None:
    folder, manifest = new_study(tmp_path / "one", images=5)
    run_search(folder, manifest, 3)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "study.json").write_text("{")
    (tmp_path / "nothing").mkdir()
    found = {overview.study: overview for overview in overviews(tmp_path)}
    assert set(found) == {"one", "broken"}
    one = found["one"].to_dict()
    summary = summarize(folder)
    assert one["trials"] == {"complete": 3}
    assert one["captions"] == 20
    assert (one["front"], one["hypervolume"], one["images"]) == (len(summary.front), summary.hypervolume, 5)
    assert one["problem"] is None
    assert "not valid JSON" in (found["broken"].problem or "")
    assert overviews(tmp_path / "none") == []
