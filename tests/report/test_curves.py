"""Precision over recall, and the curves of each parameter."""

from dataclasses import replace

import pytest
from synthetic_studies import cut_curve, random_study, scores, study, sweep, trial

from kvtune.analysis.sensitivity import FORMAT, Sensitivity
from kvtune.report.figures.drawing import COLUMN_WIDTH
from kvtune.report.figures.precision_recall import precision_recall_figure
from kvtune.report.figures.sensitivity import sensitivity_figure

CURVE = cut_curve(*((15.0 * n, 6.0 * n, 60.0 + 2 * n) for n in range(1, 6)))
CURVE.append(replace(CURVE[-1], sentences=6, recall=CURVE[-1].recall + 0.1))


def line(figure, label):
    return next(line for line in figure.axes[0].lines if line.get_label() == label)


def test_trials_and_the_cut_baseline_lie_at_their_recall_and_precision():
    summary = replace(study([trial(0, 40, 75), trial(1, 45, 70)], trial(None, 47, 77)), cut_baseline=CURVE)
    figure = precision_recall_figure(summary, chosen=0)
    for label, found in (("chosen", 0), ("other trials", 1)):
        drawn = line(figure, label)
        expected = [[summary.trials[found].rate("recall"), summary.trials[found].rate("precision")]]
        assert drawn.get_xydata().tolist() == expected
    curve = line(figure, "baseline cut to N sentences")
    assert curve.get_xydata().tolist() == [[cut.recall, cut.precision] for cut in CURVE]
    numbers = [text.get_text() for text in figure.axes[0].texts if not text.get_text().startswith("F1")]
    assert numbers == ["1", "2", "3", "4"], "the last two are as good as whole"


def test_lines_of_equal_f1_are_true():
    figure = precision_recall_figure(replace(random_study(30), cut_baseline=CURVE), None)
    grey = [each.get_xydata() for each in figure.axes[0].lines if each.get_color() == "#C4C4C4"]
    assert len(grey) >= 3
    levels = []
    for points in grey:
        f1 = 2 * points[:, 0] * points[:, 1] / points.sum(axis=1)
        assert f1.min() == pytest.approx(f1.max())
        levels.append(round(f1[0], 6))
    assert all(level % 2 == 0 for level in levels) and levels == sorted(set(levels))


@pytest.mark.parametrize("summary", [study([], None), study([trial(0, 40, 80)])], ids=["empty", "one point"])
def test_sparse_studies_can_be_drawn(summary):
    figure = precision_recall_figure(summary, None)
    figure.draw_without_rendering()
    assert [t.get_text() for t in figure.axes[0].texts] == ["no trial is judged yet"] or summary.trials


def test_each_parameter_has_a_row_of_chair_s_and_f1_on_common_scales():
    found = Sensitivity(
        format=FORMAT, study="mine", study_id="0", scoring="test", trial=3, rule="knee", around={}, importance=None,
        baseline=scores(60.0, 72.0),
        sweeps=[sweep("lambda_ref", [0.0, 0.5, 1.0], 0.5), sweep("queue_length", [2, 8, 64], 8)],
    )  # fmt: skip
    figure = sensitivity_figure(found)
    assert figure.get_size_inches()[0] == COLUMN_WIDTH
    assert [axes.get_xlabel() for axes in figure.axes] == ["lambda_ref"] * 2 + ["queue_length"] * 2
    left, right = figure.axes[0], figure.axes[1]
    assert left.lines[0].get_xydata().tolist() == [[0.0, 50.0], [0.5, 49.0], [1.0, 48.0]]
    assert right.lines[0].get_ydata().tolist() == [70.0, 71.0, 72.0]
    assert left.get_ylim() == figure.axes[2].get_ylim() and right.get_ylim() == figure.axes[3].get_ylim()
    band = left.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == 43.0 and band[:, 1].max() == 55.0
    assert [axes.get_xscale() for axes in figure.axes] == ["linear", "linear", "log", "log"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["95 % interval", "baseline", "held value"]
