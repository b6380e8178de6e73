"""Held-out results, ties, raced trials and floors in tables, sentences and pictures."""

import io
from dataclasses import replace

import pandas as pd
import pytest
from rich.console import Console
from synthetic_studies import random_study, study, trial, validation

from kvtune.analysis.result import Difference
from kvtune.analysis.selection import choose
from kvtune.report import facts
from kvtune.report.figures.front import front_figure
from kvtune.report.figures.held_out import held_out_figure
from kvtune.report.study_files import write_pictures, write_trials
from kvtune.report.terminal.study import front_view


def shown(summary, chosen):
    console = Console(file=io.StringIO(), width=140)
    console.print(front_view(summary, choose(summary, f"trial:{chosen}"), console, every=True))
    return console.file.getvalue()


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def line(figure, label):
    return next(line for line in figure.axes[0].lines if line.get_label() == label)


@pytest.fixture
def summary():
    difference = Difference(-6.2, (-8.0, -4.4), 0.001, 0.002)
    first = replace(
        trial(0, 40, 75, published=True, width=2.5, a=1),
        differences={"chair_s": difference, "f1": difference},
        ties=(1,),
    )
    found = study([first, replace(trial(1, 41, 76, a=2), ties=(0, 2)), replace(trial(2, 45, 78, a=3), ties=(1,))])
    return replace(found, validation=validation(found, [None, 0, 2], chair_s=44.0, f1=71.0, width=3.0))


def test_what_is_left_of_the_choice_on_held_out_images_is_said(summary):
    text = " ".join(shown(summary, 0).split())
    assert "Trial 0 against the baseline: CHAIR_S -6.2" in text
    assert "The same on 400 held-out images: CHAIR_S -4.0 (95 % interval -6.0 to -2.0" in text
    assert "kvtune validate" not in text
    without = " ".join(shown(replace(summary, validation=None), 0).split())
    assert "kvtune validate measures it on others" in without and "held-out images:" not in without


def test_points_tied_with_the_chosen_one_are_marked(summary):
    text = shown(summary, 0)
    assert "1 front, tied" in text and "2 front, tied" not in text
    assert "Tied on the front (paired 95 % intervals contain 0): 0 with 1 " in text
    figure = front_figure(summary, 0)
    level = line(figure, "front, tied with chosen")
    assert list(level.get_xdata()) == [41] and level.get_markerfacecolor() == "white"
    assert list(line(figure, "front").get_xdata()) == [45]
    assert "front, tied with chosen" not in legend(front_figure(summary, None))


def test_the_held_out_picture_joins_each_setting_to_its_place_on_tune_images(summary):
    figure = held_out_figure(summary.validation, chosen=2)
    assert legend(figure) == ["chosen", "baseline", "published", "from tune images", "95 % intervals"]
    paths = [list(map(tuple, each.get_xydata())) for each in figure.axes[0].lines if len(each.get_xdata()) == 2]
    assert sorted(paths) == [[(40, 75), (44, 71)], [(45, 78), (44, 71)], [(47.2, 77.4), (44, 71)]]
    assert [text.get_text() for text in figure.axes[0].texts] == ["0, 2"]
    assert "400 held-out images" in figure.axes[0].get_xlabel()


def test_a_published_preset_that_is_no_trial_is_drawn_from_nowhere(summary):
    alone = summary.validation.settings[1].model_copy(update={"number": None, "roles": ["published"], "tune": None})
    found = summary.validation.model_copy(update={"settings": [summary.validation.settings[0], alone]})
    figure = held_out_figure(found, chosen=None)
    assert legend(figure) == ["baseline", "published", "from tune images", "95 % intervals"]
    assert len([each for each in figure.axes[0].lines if len(each.get_xdata()) == 2]) == 1


def test_tables_and_pictures_of_a_validated_study(summary, tmp_path):
    assert {path.stem for path in write_pictures(tmp_path, summary, 0)} == {
        "front", "precision-recall", "hypervolume", "held-out",
    }  # fmt: skip
    frame = pd.read_csv(write_trials(tmp_path, summary, 0)[0])
    assert frame["holdout_chair_s"].tolist()[:2] == [44.0, 44.0] and pd.isna(frame["holdout_chair_s"][2])
    assert (frame["holdout_f1_low"][3], frame["holdout_f1_high"][3]) == (68.0, 74.0)


def test_raced_trials_say_on_how_many_images_they_were_stopped(tmp_path):
    found = replace(random_study(20, raced=3), race_confidence=0.95)
    text = " ".join(shown(found, found.front[0]).split())
    assert "3 raced out)" in text
    assert "Raced out, 95 % sure: 3 trials, after 200 of 500 images; their rates are over those alone" in text
    assert facts.racing(random_study(5)) is None
    frame = pd.read_csv(write_trials(tmp_path, found, None)[0])
    raced = frame[frame["state"] == "raced"]
    assert raced["raced_out_by"].tolist() == [0, 0, 0] and raced["images"].tolist() == [200] * 3
    assert not raced["front"].any() and "raced_out_by" not in pd.read_csv(write_trials(tmp_path, study([]), None)[0])


def test_trials_below_a_floor_are_named(tmp_path):
    below = replace(trial(1, 30, 60), below_floor=("f1", "mean_words"))
    found = replace(study([trial(0, 40, 75), below]), floors={"f1": 70.0, "mean_words": 50.0}, front=[0])
    text = shown(found, 0)
    assert "1 below floor" in text
    assert "On the front only with F1 of at least 70 and words of at least 50; 1 trial below" in text
    assert pd.read_csv(write_trials(tmp_path, found, None)[0])["below_floor"][2] == "f1 mean_words"
