"""The ledger: what was asked and what came of it."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_search import new_study

from kvtune.errors import KvtuneError
from kvtune.study.manifest import load_trials
from kvtune.study.trials import Ledger, LedgerWriter, Trial

METRICS = {"chair_s": 40.0, "f1": 60.5, "images": 10}
ASKED = [Trial(0, {"lambda_ref": 0.7}, True, {"generation": 0}), Trial(1, {"lambda_ref": 0.2})]


def filled(path: Path) -> LedgerWriter:
    ledger = LedgerWriter(path)
    ledger.complete(None, METRICS, "s1")
    ledger.ask(ASKED)
    ledger.complete(0, METRICS | {"f1": 1 / 3}, "s1")
    ledger.fail(1, "OutOfMemoryError: x")
    ledger.ask([Trial(2, {"lambda_ref": 0.4})])
    return ledger


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    ledger = filled(tmp_path / "trials.jsonl")
    ledger.close()
    for again in (ledger, Ledger(tmp_path / "trials.jsonl")):
        assert again.baseline == Trial(None, state="complete", metrics=METRICS, scoring="s1")
        assert again.baseline.point == (40.0, 60.5)
        first, second, third = again.trials
        done = {"state": "complete", "metrics": METRICS | {"f1": 1 / 3}, "scoring": "s1"}
        assert first == replace(ASKED[0], **done)  # type: ignore[arg-type]
        assert second == replace(ASKED[1], state="failed", reason="OutOfMemoryError: x")
        assert again.running == [third] == [Trial(2, {"lambda_ref": 0.4})]
        assert again.finished == 1
        assert again[None] is again.baseline and again[1] is second


def test_a_torn_last_line_never_happened(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    filled(path).close()
    whole = path.read_bytes()
    path.write_bytes(whole[:-5])
    assert len(Ledger(path).trials) == 2
    ledger = LedgerWriter(path)
    ledger.ask([Trial(2, {"lambda_ref": 0.4})])
    assert path.read_bytes() == whole


def test_rewriting_changes_every_trial_at_once(tmp_path: Path) -> None:
    path = tmp_path / "trials.jsonl"
    ledger = filled(path)
    new = {"chair_s": 1.0, "f1": 2.0, "images": 10}
    ledger.rewrite(lambda trial: replace(trial, metrics=new, scoring="s2") if trial.metrics else trial)
    ledger.complete(2, METRICS, "s2")
    ledger.close()
    again = Ledger(path)
    assert again.baseline.metrics == new and again.trials[0].metrics == new
    assert again.trials[1].reason == "OutOfMemoryError: x"
    assert again.trials[2].metrics == METRICS
    assert {trial.scoring for trial in again.trials} == {"s2", None}
    assert again.trials[0].published and again.trials[0].sampler == {"generation": 0}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([{"number": 0, "event": "guessed"}], "unknown event 'guessed'"),
        ([{"number": None, "event": "complete", "metrics": METRICS, "scoring": "s", "x": 1}], "unknown key 'x'"),
        ([{"number": None, "event": "complete", "metrics": METRICS}], "'scoring' is missing"),
        ([{"number": 0, "event": "failed", "reason": "x"}], "trial 0 was never asked; restore the file from a copy"),
        ([{"number": 1, "event": "asked", "params": {}, "published": False, "sampler": {}}], "where 0 comes next; "),
    ],
)
def test_events_that_make_no_sense(tmp_path: Path, lines: list[dict[str, object]], message: str) -> None:
    path = tmp_path / "trials.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(KvtuneError, match=message):
        Ledger(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"chair_s": 100.5}, "chair_s cannot be 100.5"),
        ({"f1": -0.5}, "f1 cannot be -0.5"),
        ({"images": 0}, "images must be a whole number above 0"),
        ({"images": 2.5}, "images must be a whole number above 0"),
        ({"colour": 1.0}, "unknown metric 'colour'"),
        ({"mean_words": 250.5, "scorer": "3"}, None),
    ],
)
def test_recorded_scores_are_in_their_ranges(tmp_path: Path, change: dict[str, Any], message: str | None) -> None:
    path = tmp_path / "trials.jsonl"
    path.write_text(
        json.dumps({"number": None, "event": "complete", "metrics": METRICS | change, "scoring": "s"}) + "\n"
    )
    if message is None:
        assert Ledger(path).baseline.metrics == METRICS | change
        return
    with pytest.raises(KvtuneError, match=f"line 1.*{message}"):
        Ledger(path)


@pytest.mark.parametrize("value", ["0.5", True, None])
def test_a_searched_parameter_that_is_no_number_is_refused(tmp_path: Path, value: Any) -> None:
    folder, manifest = new_study(tmp_path / "s")
    ledger = LedgerWriter(folder.ledger)
    ledger.ask([Trial(0, manifest.published[0].parameters | {"lambda_ref": value})])
    ledger.close()
    with pytest.raises(KvtuneError, match="trial 0: there must be a number for 'lambda_ref'"):
        load_trials(folder, manifest)


def test_no_file_is_an_empty_study(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "none.jsonl")
    assert ledger.baseline.state == "running" and ledger.trials == [] and ledger.finished == 0
