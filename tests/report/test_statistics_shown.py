"""The cut baseline, differences, ties and length in pictures and tables."""

from dataclasses import replace

import pandas as pd
from synthetic_studies import cut_curve, random_study, study, trial

from kvtune.analysis.result import Difference
from kvtune.analysis.summary import Length
from kvtune.report import study_files
from kvtune.report.data.frames import cut_baseline_frame, trials_frame
from kvtune.report.figures.front import front_figure

CURVE = cut_curve(*((15.0 * n, 6.0 * n, 60.0 + 2 * n) for n in range(1, 8)))


def test_the_cut_baseline_is_a_staircase_with_its_best_point_inside_the_picture():
    cuts = cut_curve((15.0, 6.0, 60.0), (30.0, 20.0, 82.0), (45.0, 25.0, 81.0), (60.0, 30.0, 90.0), (75.0, 47.0, 77.0))
    plain = random_study(30, width=2.0)
    assert not any(line.get_label() == "baseline cut short" for line in front_figure(plain, None).axes[0].lines)
    figure = front_figure(replace(plain, cut_baseline=cuts), None)
    (axes,) = figure.axes
    steps = next(line for line in axes.lines if line.get_linestyle() == ":" and len(line.get_xdata()))
    # Dominated cuts (25, 81) and (47, 77) are no corners, the last step goes on to the whole baseline.
    corners = [(6, 60), (20, 60), (20, 82), (30, 82), (30, 90), (47, 90)]
    assert [tuple(place) for place in steps.get_xydata()] == corners
    dots = next(line for line in axes.lines if line.get_linestyle() == "None" and len(line.get_xdata()) == len(cuts))
    assert [tuple(place) for place in dots.get_xydata()] == [(cut.chair_s, cut.f1) for cut in cuts]
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    assert left < 30 < right and low < 90 < high and left > 6
    assert "baseline cut short" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_a_baseline_of_one_sentence_draws_no_curve():
    figure = front_figure(replace(random_study(5), cut_baseline=CURVE[:1]), None)
    assert "baseline cut short" not in [line.get_label() for line in figure.axes[0].lines]


def test_tables_have_what_was_computed(tmp_path):
    difference = Difference(-7.0, (-9.0, -5.0), 0.001, 0.02)
    length = Length(1.5, (0.6, 0.9, 0.95), 41.0, 70.0, "too short")
    found = replace(
        trial(0, 40, 75, width=2.0),
        differences={"chair_s": difference, "f1": replace(difference, value=1.0, interval=(-1.0, 3.0))},
        ties=(1,),
        length=length,
    )
    summary = replace(study([found, trial(1, 41, 76)]), cut_baseline=CURVE)
    written = study_files.write_trials(tmp_path, summary, None)
    assert [path.name for path in written] == ["trials.csv", "cut_baseline.csv"]
    frame = pd.read_csv(written[0])
    row, other = frame.iloc[1], frame.iloc[2]
    assert (row["chair_s_difference"], row["chair_s_difference_low"], row["chair_s_difference_high"]) == (-7, -9, -5)
    assert (row["f1_p"], row["f1_p_adjusted"], row["f1_difference"]) == (0.001, 0.02, 1.0)
    assert (row["distinct_1"], row["distinct_3"], row["at_limit"]) == (0.6, 0.95, 1.5)
    assert (row["cut_chair_s"], row["cut_f1"], row["length_flag"], int(row["ties"])) == (41.0, 70.0, "too short", 1)
    assert pd.isna(other["chair_s_difference"]) and pd.isna(other["length_flag"])
    pd.testing.assert_frame_equal(pd.read_csv(written[1]), cut_baseline_frame(summary))
    assert "ties" not in trials_frame(study([trial(0, 40, 75)])).columns
