"""Tables of several commands at every width: nothing cut, nothing lost."""

import io
import re
from dataclasses import replace

import pytest
from rich.console import Console
from synthetic_studies import random_study, scores, study, sweep, trial, validation

from kvtune.analysis.overview import Overview
from kvtune.analysis.selection import Choice
from kvtune.analysis.sensitivity import FORMAT, Sensitivity
from kvtune.models.availability import presences
from kvtune.report.terminal.held_out import validation_view
from kvtune.report.terminal.models import models_view
from kvtune.report.terminal.sensitivity import sensitivity_view
from kvtune.report.terminal.studies import overviews_view
from kvtune.report.terminal.study import front_view

WIDTHS = pytest.mark.parametrize("width", [60, 80, 140])


def shown(view, width, *arguments, **options):
    console = Console(file=io.StringIO(), width=width)
    console.print(view(*arguments, console, **options))
    text = console.file.getvalue()
    assert max(map(len, text.split("\n"))) <= width and "…" not in text
    return text


@WIDTHS
def test_studies(width):
    states = {"complete": 480, "failed": 3, "raced": 9, "running": 8}
    long = Overview(
        "llava-1.5-13b-kvsmooth-of-the-long-name", "x", "2026-11-21T14:12:00+00:00", None,
        "llava-hf/llava-1.5-13b-hf", "kvsmooth", 500, states, 1, 12, 11.04, None,
    )  # fmt: skip
    begun = Overview("begun", "x", "2026-11-20T14:12:00+00:00", None, "demo", "kvsmooth", 100, {}, 0, 0, None, None)
    broken = Overview("broken", "x", "2026-11-20T14:12:00+00:00", problem="the key 'id' is missing")
    lines = [
        "7 workers (7 x NVIDIA H100 80GB HBM3), 1 lost, 246 captions a second",
        "gpu-node-17: 7 x NVIDIA H100 80GB HBM3, 35 35 35 36 35 35 35 each",
        "gpu-node-18: lost: The actor died unexpectedly before finishing this task.",
    ]
    at_work = replace(begun, study="many", in_use=True, workers=[], workers_in_words=lines)
    stopped = replace(at_work, study="stopped", in_use=False)
    text = shown(overviews_view, width, [long, begun, broken, at_work, stopped])
    told = " ".join(text.split())
    assert f"many, at work: {' '.join(lines)} stopped, last written by: {lines[0]}" in told
    for words in ("480 complete", "9 raced", "8 in work", "11.0", "none yet", "broken: the key 'id' is missing"):
        assert words in text
    assert "unreadable" in text and ("2026-11-21 14:12" in text) == (width >= 80)
    assert ("llava-hf" in text) == (width == 140)


@WIDTHS
def test_models(width, monkeypatch, tmp_path):
    monkeypatch.setenv("KVTUNE_MODELS", str(tmp_path))
    table = shown(lambda console: models_view(presences(), console)[0], width)
    assert "llava-onevision-0.5b" in table and "instructblip" in table and "missing" in table
    assert ("LLaVA-OneVision" in table) == (width >= 80)


@WIDTHS
def test_validation(width):
    summary = random_study(20, width=2.0)
    found = validation(summary, [None, 0, *summary.front[:2]], chair_s=44.0, f1=71.0, width=3.0)
    text = shown(validation_view, width, found)
    assert text.count("41.0-47.0") == text.count("68.0-74.0") == len(found.settings)
    assert text.count("-6.0 to -2.0\n") + len(re.findall("-6.0 to -2.0 ", text)) >= 2 * (len(found.settings) - 1)
    assert f"- trial {summary.front[0]} (front)" in text


@WIDTHS
def test_sensitivity(width):
    found = Sensitivity(
        format=FORMAT, study="mine", study_id="0", scoring="test", trial=3, rule="knee", around={"lambda_ref": 0.5},
        baseline=scores(60.0, 72.0), sweeps=[sweep("lambda_ref", [0.0, 0.5, 1.0], 0.5)],
        importance={"chair_s": {"lambda_ref": 0.7, "clip_width": 0.3}, "f1": {"lambda_ref": 0.1, "clip_width": 0.9}},
        importance_p={"chair_s": {"lambda_ref": 0.2, "clip_width": 1.0}, "f1": {"lambda_ref": 1.0, "clip_width": 0.05}},
    )  # fmt: skip
    text = shown(sensitivity_view, width, found)
    assert ("45.0-55.0" if width == 60 else "50.0 (45.0-55.0)") in text
    told = " ".join(text.split())
    assert "held" in text and "clip_width 90 %, lambda_ref 10 %; more than chance: clip_width" in told
    assert "lambda_ref 70 %, clip_width 30 %; all of it may be chance" in told


@WIDTHS
def test_a_study_of_which_nothing_is_known_yet_has_no_empty_table(width):
    choice = Choice(None, "keep-f1", "nothing yet")
    begun = study([trial(0, None, None, "running", lambda_ref=0.5)], None)
    console = Console(file=io.StringIO(), width=width)
    console.print(front_view(begun, choice, console))
    assert "CHAIR_S" not in console.file.getvalue()
    console.print(front_view(begun, choice, console, every=True))
    assert "0 in work" in console.file.getvalue()
