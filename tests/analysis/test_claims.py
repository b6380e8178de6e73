"""No improvement is claimed that the data do not show, in presets and in what is printed."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from scored_studies import scored_study
from synthetic_studies import cut_curve, study, trial

from kvtune.analysis.claims import claim, claims, verdict
from kvtune.analysis.result import Difference
from kvtune.analysis.summary import Length, TrialSummary
from kvtune.cli.main import main
from kvtune.presets import load_preset
from kvtune.report import facts
from kvtune.report.terminal.length_control import cut_table


def difference(low: float, high: float, p: float = 0.02) -> Difference:
    return Difference((low + high) / 2, (low, high), p, p)


@pytest.mark.parametrize(
    ("metric", "low", "high", "expected"),
    [
        ("chair_s", -5, -1, "better"),
        ("chair_s", 0.1, 0.5, "worse"),
        ("chair_s", -5, 0, "unclear"),
        ("f1", 0.1, 0.5, "better"),
        ("f1", -5, -1, "worse"),
        ("f1", -1, 5, "unclear"),
    ],
)
def test_a_claim_needs_an_interval_without_0(metric: str, low: float, high: float, expected: str) -> None:
    found = difference(low, high)
    assert verdict(metric, found) == expected
    assert ("may be chance" in claim(metric, found)) == (expected == "unclear")
    assert (": worse" in claim(metric, found)) == (expected == "worse")


def test_an_interval_is_not_enough_where_many_were_compared() -> None:
    assert verdict("chair_s", Difference(-3, (-5, -1), 0.01, 0.2)) == "unclear"
    assert verdict("chair_s", Difference(-3, (-5, -1), 0.01, 0.04)) == "better"


def test_claims_in_words() -> None:
    assert claim("chair_s", Difference(-6.2, (-8.0, -4.4), 0.0001, 0.0004)) == (
        "CHAIR_S -6.2 (95 % interval -8.0 to -4.4, unadjusted; p < 0.001, Holm-adjusted)"
    )
    assert "; p 0.001, Holm" in claim("chair_s", Difference(-6.2, (-8.0, -4.4), 0.0001, 0.001))
    plain = trial(3, 40, 75)
    assert claims(plain) == []


def flagged(number: int, flag: str | None) -> TrialSummary:
    made = trial(number, 40.0 + number, 75.0 + number, width=2.0)
    return TrialSummary(**{**vars(made), "length": Length(0, (1, 1, 1), 30, 70, flag), "ties": (1 - number,)})


def test_the_terminal_says_ties_flags_and_cuts() -> None:
    found = study([flagged(0, "too short"), flagged(1, None)])
    assert facts.ties(found, None) == "Tied on the front (paired 95 % intervals contain 0): 0 with 1"
    assert facts.ties(found, 1) == "Tied on the front (paired 95 % intervals contain 0): 1 with 0"
    assert facts.ties(study([trial(0, 40, 80)]), 0) is None
    told = facts.length_flags(found)
    assert told is not None and "cut short: trial 0." in told
    assert facts.length_flags(study([flagged(0, None)])) is None


@pytest.mark.parametrize(("width", "cuts"), [(36, 2), (60, 6), (80, 8)])
def test_the_terminal_shows_as_many_cuts_as_fit(width: int, cuts: int) -> None:
    curve = cut_curve(*((10.0 * n, 5.0 * n, 50.0 + n) for n in range(1, 9)))
    console = Console(file=io.StringIO(), width=width)
    table = cut_table(replace(study([]), cut_baseline=curve), console)
    console.print(table)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert max(map(len, lines)) <= width and lines[0].split()[2:] == [str(n) for n in range(1, cuts + 1)]
    assert lines[3].split()[2:] == [f"{5.0 * n:.1f}" for n in range(1, cuts + 1)]
    assert cut_table(study([]), console) is None


def test_a_preset_carries_its_evidence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scored_study(tmp_path / "studies" / "mine")
    arguments = ["export", "mine", "--select", "min-chair", "--studies-dir", str(tmp_path / "studies")]
    with pytest.raises(SystemExit) as ended:
        main([*arguments, "--out", str(tmp_path / "preset.json")])
    shown = capsys.readouterr().out
    assert not ended.value.code
    metrics = load_preset(tmp_path / "preset.json").metrics
    assert metrics is not None
    for metric in ("chair_s", "f1"):
        found = metrics.tune["differences"][metric]
        unclear = found["interval"][0] <= 0 <= found["interval"][1] or found["p_adjusted"] >= 0.05
        assert (metrics.tune["verdict"][metric] == "unclear") == unclear
        label = {"chair_s": "CHAIR_S", "f1": "F1"}[metric]
        begin = f"tune images, against the baseline: {label}"
        (line,) = [line for line in shown.splitlines() if line.startswith(begin)]
        assert ("may be chance" in line) == unclear
    assert set(metrics.tune["intervals"]) == set(metrics.baseline["intervals"])
    assert "differences" not in metrics.baseline


def test_pareto_shows_intervals_and_writes_the_cut_baseline(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = scored_study(tmp_path / "studies" / "mine")
    with pytest.raises(SystemExit):
        main(["pareto", "mine", "--studies-dir", str(tmp_path / "studies")])
    shown = capsys.readouterr().out
    assert "captions cut short" in shown and "less the luck of its front" in shown
    assert (folder.report / "cut_baseline.csv").read_text().startswith("sentences,mean_words,chair_s")
    header = (folder.report / "trials.csv").read_text().splitlines()[0]
    assert "chair_s_low" in header and "f1_p_adjusted" in header and "length_flag" in header
    with pytest.raises(SystemExit):
        main(["pareto", "mine", "--json", "--studies-dir", str(tmp_path / "studies")])
    document = json.loads(capsys.readouterr().out)
    assert all(entry["intervals"] for entry in document["trials"])
