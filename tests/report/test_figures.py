import io
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from synthetic_studies import cut_curve, random_study, scores, study, trial, validation

from kvtune.report.data.overlay import OverlayPoint
from kvtune.report.figures.compare import comparison_figure
from kvtune.report.figures.drawing import COLUMN_WIDTH, column_figure, drawn_text, save_figure
from kvtune.report.figures.front import front_figure
from kvtune.report.figures.held_out import held_out_figure
from kvtune.report.figures.hypervolume import hypervolume_figure, hypervolumes
from kvtune.report.figures.points import number_points
from kvtune.report.study_files import write_pictures
from kvtune.statistics.hypervolume import hypervolume


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def line(figure, label):
    return next(line for line in figure.axes[0].lines if line.get_label() == label)


def test_every_kind_of_point_is_drawn_once_and_named():
    summary = random_study(50, raced=5, failed=2, running=1, width=2.0)
    figure = front_figure(summary, summary.front[0])
    names = ["chosen", "baseline", "published", "front", "other trials", "raced out, fewer images", "95 % intervals"]
    assert legend(figure) == names
    assert len(line(figure, "front").get_xdata()) == len(summary.front) - 1  # the star stands for the chosen one
    assert len(line(figure, "raced out, fewer images").get_xdata()) == 5
    front = set(summary.front)
    published = {t.number for t in summary.trials if t.published}
    others = [t for t in summary.trials if t.state == "complete" and t.number not in front | published]
    assert len(line(figure, "other trials").get_xdata()) == len(others)


def test_hollow_marks_lie_over_solid_ones_so_that_neither_is_hidden():
    summary = study([trial(0, 47.2, 77.4, published=True), trial(1, 60, 60)], trial(None, 47.2, 77.4))
    figure = front_figure(summary, chosen=0)
    chosen, baseline, published = (line(figure, label) for label in ("chosen", "baseline", "published"))
    assert baseline.get_markerfacecolor() == published.get_markerfacecolor() == "none"
    assert min(baseline.get_zorder(), published.get_zorder()) > chosen.get_zorder()


def test_the_front_has_its_trial_numbers_and_ties_share_one_label():
    figure = front_figure(study([trial(3, 30, 60), trial(7, 40, 70), trial(12, 40, 70)]), None)
    assert sorted(texts(figure)) == ["3", "7, 12"]


def test_labels_never_overlap():
    summary = study([trial(n, 30 + n / 20, 60 + n / 20) for n in range(60)], None)
    figure = front_figure(summary, None)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert 10 < len(boxes) < 60
    assert not any(a.overlaps(b) for n, a in enumerate(boxes) for b in boxes[:n])


@given(st.lists(st.tuples(st.integers(30, 40), st.integers(60, 70)), min_size=1, max_size=12, unique=True))
@settings(deadline=None, max_examples=15)
def test_a_number_covers_no_point(places):
    figure, axes = column_figure()
    axes.plot(*zip(*places, strict=True), "o", markersize=4.5)
    number_points(figure, axes, [(index, x, y) for index, (x, y) in enumerate(places)])
    centres = dict(enumerate(axes.transData.transform(places)))
    for text in axes.texts:
        box = text.get_window_extent()
        assert not any(box.contains(*centre) for centre in centres.values())
    assert axes.texts


def test_error_bars_span_the_intervals():
    summary = study([trial(0, 40, 75, width=2.5)], None)
    ends = [p.vertices.tolist() for c in front_figure(summary, None).axes[0].collections for p in c.get_paths()]
    assert [[37.5, 75], [42.5, 75]] in ends and [[40, 72.5], [40, 77.5]] in ends


def test_reported_results_are_hollow_and_labelled():
    overlays = [
        OverlayPoint("VCD", {"chair_s": 48.0, "f1": 70.0}, reported=True, source="a paper"),
        OverlayPoint("ours", {"chair_s": 41.0, "f1": 71.0}, reported=False, source="x.jsonl"),
    ]
    figure = front_figure(study([trial(0, 40, 75)]), None, overlays)
    assert legend(figure)[-2:] == ["reported, other images", "captions file, same images"]
    assert line(figure, "reported, other images").get_markerfacecolor() == "none"
    assert {"VCD", "ours"} <= set(texts(figure))


@pytest.mark.parametrize(
    "summary",
    [study([], None), study([trial(0, None, None, "failed")]), study([trial(0, 40, 75)]), random_study(500, raced=100)],
    ids=["empty", "all failed", "one point", "500 trials"],
)
def test_pictures_have_the_size_of_a_column_and_are_valid(summary, tmp_path):
    paths = write_pictures(tmp_path, summary, summary.front[0] if summary.front else None)
    assert {path.suffix for path in paths} == {".png", ".svg"}
    for path in paths:
        if path.suffix == ".png":
            with Image.open(path) as image:
                assert image.width == round(COLUMN_WIDTH * 300) and image.info["Title"].startswith(summary.study)
        else:
            assert ElementTree.parse(path).getroot().tag.endswith("svg")
    assert (tmp_path / "hypervolume.png").exists() == (summary.baseline is not None)


@pytest.mark.parametrize("with_all", [False, True])
def test_everything_drawn_lies_inside_the_picture(with_all):
    summary, overlays = random_study(50, width=3.0, raced=4), []
    chosen = summary.front[0]
    if with_all:
        tied = [replace(t, ties=tuple(summary.front[1:3])) if t.number == chosen else t for t in summary.trials]
        curve = cut_curve(*((15.0 * n, 20.0 * n, 70.0 + 3 * n) for n in range(1, 4)))
        summary = replace(summary, trials=tied, cut_baseline=curve)
        overlays = [OverlayPoint("VCD", {"chair_s": 48.0, "f1": 70.0}, reported=True, source="a paper")]
    figure = front_figure(summary, chosen, overlays)
    figure.savefig(io.BytesIO(), format="png")
    axes = figure.axes[0]
    assert len(legend(figure)) == (10 if with_all else 7)
    low, high = axes.get_xlim()
    ticks = [label for label in axes.get_xticklabels() if low <= label.get_position()[0] <= high]
    for artist in (axes.xaxis.label, axes.yaxis.label, figure.legends[0], *ticks):
        box = artist.get_window_extent()
        assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= figure.bbox.x1 + 1 and box.y1 <= figure.bbox.y1 + 1


def test_the_same_study_gives_the_same_file(tmp_path):
    for name in ("a", "b"):
        save_figure(front_figure(random_study(10), None), tmp_path / f"{name}.svg", "study")
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


@given(st.lists(st.tuples(st.floats(0, 100), st.floats(0, 100)), min_size=1, max_size=20))
@settings(deadline=None)
def test_hypervolume_never_falls_and_ends_at_the_studys(points):
    summary = study([trial(n, x, y) for n, (x, y) in enumerate(points)])
    numbers, volumes = hypervolumes(summary)
    assert numbers == list(range(len(points))) and volumes == sorted(volumes)
    reference = summary.reference_point
    assert volumes[-1] == pytest.approx(hypervolume(points, (reference["chair_s"], reference["f1"])))
    assert hypervolumes(study([trial(0, 40, 75)], None)) == ([], [])


@pytest.mark.parametrize("width", [None, 3.0])
def test_error_bars_are_named_where_there_are_any(width):
    summary = random_study(12, width=width)
    for figure in (front_figure(summary, 0), comparison_figure([(summary, 0)])):
        assert ("95 % intervals" in legend(figure)) == (width is not None)
        assert figure.axes[0].get_xlabel().endswith("; 500 tune images")


def test_the_legend_of_the_hypervolume_names_its_line():
    figure = hypervolume_figure(random_study(12))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["the front up to each trial"]


def test_numbers_on_held_out_images_cover_no_place_on_tune_images_and_do_not_run_together():
    summary = random_study(40)
    found = validation(summary, [None, 0, *summary.front], chair_s=41.0, f1=76.0, width=2.0)
    moved = [
        setting.model_copy(
            update={"holdout": setting.holdout.model_copy(update={"metrics": scores(36 + 1.5 * n, 74 + n % 3)})}
        )
        for n, setting in enumerate(found.settings)
    ]
    figure = held_out_figure(found.model_copy(update={"settings": moved}), None)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) > 2
    for index, box in enumerate(boxes):
        assert not any(box.padded(1).overlaps(other) for other in boxes[:index])
    tune = [setting.tune.metrics for setting in found.settings if setting.tune is not None]
    places = axes.transData.transform([(each.chair_s, each.f1) for each in tune])
    assert not any(box.contains(*place) for box in boxes for place in places)


@pytest.mark.parametrize("name", [r"$\no-command$", "$x$", "a $ b", "\x1b[31m\r"])
def test_names_are_no_mathematics(name, tmp_path):
    figure, axes = column_figure()
    axes.plot([0, 1], label=drawn_text(name))
    axes.annotate(drawn_text(name), (0, 0))
    axes.legend()
    save_figure(figure, tmp_path / "figure.png", name)
    assert (tmp_path / "figure.png").stat().st_size > 1000
