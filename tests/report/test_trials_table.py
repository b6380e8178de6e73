import io
import re
from dataclasses import replace

import pytest
from rich.console import Console
from synthetic_studies import random_study, study, trial

from kvtune.analysis.selection import choose
from kvtune.report.data.overlay import OverlayPoint
from kvtune.report.terminal.study import front_view


def view(summary, width=140, encoding="utf-8", overlays=(), every=False, rule="keep-f1", **console):
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    terminal = Console(file=file, width=width, highlight=False, **console)
    terminal.print(front_view(summary, choose(summary, rule), terminal, overlays, every=every))
    file.seek(0)
    return file.read()


def table(text):
    """What follows the picture and its legend."""
    return text[text.index("trial  ") :]


@pytest.mark.parametrize("width", [60, 80, 140])
@pytest.mark.parametrize("interval", [None, 3.0])
def test_nothing_is_cut_or_wrapped(width, interval):
    summary = random_study(50, raced=5, failed=2, running=1, width=interval)
    text = view(summary, width)
    assert max(map(len, text.split("\n"))) <= width and "…" not in text
    for number in summary.front:
        member = next(t for t in summary.trials if t.number == number)
        (row,) = re.findall(rf"^[★▲●] +{number} .*{member.rate('chair_s'):.1f} .*$", text, re.MULTILINE)
        assert f" {member.rate('f1'):.1f} " in row
        assert f"{member.params['lambda_ref']:.3g}" in text
    for name in ("lambda", "queue", "clip", "start", "CHAIR_S", "F1", "words"):
        assert name in text


@pytest.mark.parametrize("width", [60, 80])
def test_parameters_of_a_stack_take_as_many_tables_as_they_need(width):
    names = [f"{method}.{name}" for method in ("kvsmooth", "middle_layers") for name in ("start_layer", "end_layer")]
    names += ["lambda_ref", "queue_length", "clip_width", "alpha"]
    trials = [
        replace(trial(number, 40 + number, 70 + number), params=dict.fromkeys(names, 0.123 + number))
        for number in range(3)
    ]
    text = view(study(trials), width)
    assert max(map(len, text.split("\n"))) <= width and "…" not in text
    assert table(text).count("1.12") == len(names)
    for word in ("kvsmooth", "middle", "alpha"):
        assert word in text


def test_front_by_rising_chair_s_with_baseline_and_published_first():
    text = view(study([trial(0, 46, 70, published=True), trial(1, 40, 75), trial(2, 35, 60), trial(3, 44, 74)]))
    order = re.findall(r"^[★▲●■] +(\d*) ?(?=baseline|published|front|chosen)", table(text), re.MULTILINE)
    assert order == ["", "0", "2", "1"]


def test_points_with_the_same_rates_have_one_row():
    baseline = replace(trial(0, 40, 75), number=None)
    trials = [trial(0, 40, 75, published=True), *(trial(number, 40, 75) for number in (1, 2, 3)), trial(4, 30, 70)]
    summary = study(trials, baseline)
    text = view(summary)
    assert re.findall(r"^[★▲●■] +(\d+)", table(text), re.MULTILINE) == ["4", "0"]
    said = " ".join(text.split())
    assert "Trial 0 stands for 1, 2, 3 too, with the same rates; kvtune pareto --all lists them" in said
    assert "The rates of trial 0 are the baseline's: perhaps it changed no caption" in said
    chosen = view(summary, rule="trial:2")
    assert re.findall(r"^[★▲●■] +(\d+)", table(chosen), re.MULTILINE) == ["4", "0", "2"]
    every = view(summary, every=True)
    assert len(re.findall(r"^[★▲●■] +(\d+)", table(every), re.MULTILINE)) == 5 and "stands for" not in every


def test_all_lists_every_trial_with_its_state():
    text = view(random_study(12, raced=2, failed=2, running=1), every=True)
    for words in ("6", "7 raced out", "8 raced out", "9 failed", "10 failed", "11 in work"):
        assert re.search(rf"^. +{words} ", table(text), re.MULTILINE), words


def test_images_are_a_column_only_where_they_differ():
    assert "images\n" not in view(random_study(12)).replace(" \n", "\n")
    assert re.search(r"words +images", view(random_study(12, raced=3), every=True))


def test_parameters_that_never_change_are_said_once():
    text = view(random_study(12))
    assert "In all trials: target kv, adaptive yes" in text and "adaptive\n" not in text


def test_intervals_stand_under_the_rates():
    text = view(study([trial(0, 40.0, 75.0, width=2.5)]))
    assert "37.5-42.5" in text and "72.5-77.5" in text


def test_the_choice_is_named_or_why_there_is_none():
    keeping = study([trial(0, 40, 78), trial(1, 38, 77)])
    assert "Chosen: trial 0, lowest CHAIR_S whose F1" in view(keeping)
    losing = study([trial(0, 40, 70)])
    text = " ".join(view(losing).split())
    assert "Nothing chosen" in text and "--select trial:0 takes it" in text and "★" not in text


def test_no_escape_codes_in_a_pipe_and_colours_on_a_terminal(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    summary = random_study(20)
    assert "\x1b" not in view(summary)
    on_terminal = view(summary, force_terminal=True, color_system="standard", _environ={"TERM": "xterm"})
    assert re.search(r"\x1b\[\d*;?3\dm", on_terminal)
    without = view(summary, force_terminal=True, no_color=True)
    assert not re.search(r"\x1b\[[\d;]*[34]\d", without)


def test_a_terminal_without_unicode_gets_none():
    text = view(random_study(20, raced=3, width=2.0), encoding="ascii", width=80)
    assert text.isascii() and "* " in text and "CHAIR_S" in text


@pytest.mark.parametrize(
    ("summary", "words"),
    [
        (study([], None), ["no trial yet", "The baseline is not judged yet.", "no complete trial"]),
        (study([]), ["no trial yet", "baseline", "47.2"]),
        (
            study([trial(0, None, None, "failed"), trial(1, None, None, "failed")]),
            ["2 trials (2 failed)", "0 on the front"],
        ),
        (study([trial(0, 50, 50, "running", images=7)], None), ["stopped, with 1 trial (1 in work)", "not judged yet"]),
        (study([trial(0, 40, 80)]), ["1 trial (1 complete); 1 on the front", "chosen, front"]),
        (
            study([trial(n, 40.0, 80.0) for n in range(4)]),
            ["4 on the front", "chosen, front", "Trial 0 stands for 1, 2, 3 too, with the same rates"],
        ),
    ],
    ids=["nothing", "only baseline", "all failed", "running, no baseline", "one point", "ties"],
)
@pytest.mark.parametrize("width", [60, 140])
def test_sparse_studies_read_well(summary, words, width):
    text = view(summary, width)
    for word in words:
        assert word in " ".join(text.split())
    assert "None" not in text and "nan" not in text


def test_a_long_name_is_not_lost():
    name = "a-very-long-study-name-" * 5
    text = view(study([trial(0, 40, 80)], name=name), 60)
    assert name in text.replace("\n", "")


def test_overlays_stand_last_and_say_what_they_are():
    point = OverlayPoint("VCD", {"chair_s": 45.0, "f1": 70.0}, reported=True, source="a table")
    text = view(study([trial(0, 40, 80)]), overlays=[point])
    assert re.search(r"◇ VCD .*45\.0 .*70\.0", text)
    assert "(reported, other images)" in text and "Reported: a table" in text
