import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic_studies import random_study, study, trial

from kvtune.chair import OBJECTIVES
from kvtune.report.data.overlay import OverlayPoint
from kvtune.report.roles import LOOKS, front_line, marks, roles
from kvtune.report.terminal.scatter import MINIMUM_WIDTH, scatter


def lines(summary, chosen=None, width=80, **options):
    return scatter(summary, chosen, width=width, **options).plain.split("\n")


def canvas(text_lines):
    """The part between the name of the vertical axis and the horizontal axis, without the tick labels."""
    end = next(index for index, line in enumerate(text_lines) if "└" in line or "+-" in line)
    return [line.split("│", 1)[-1].split("|", 1)[-1] for line in text_lines[1:end]]


def positions(text_lines, glyph):
    return [(x, y) for y, line in enumerate(canvas(text_lines)) for x, c in enumerate(line) if c == glyph]


def test_points_lie_where_their_scores_say():
    summary = study([trial(0, 30, 60), trial(1, 40, 70), trial(2, 35, 50)], trial(None, 45, 65))
    drawing = lines(summary)
    (first, second), (dominated,), (baseline,) = (positions(drawing, glyph) for glyph in "●·■")
    # Reading order: the higher F1 comes first.
    assert first[0] > second[0] and first[1] < second[1]
    assert second[0] < dominated[0] < first[0] < baseline[0]
    assert first[1] < baseline[1] < second[1] < dominated[1]


def test_tick_labels_are_true():
    summary = study([trial(n, 10.0 * n, 10.0 * n) for n in range(1, 10)])
    drawing = lines(summary, height=40)
    rows = {
        int(line.split("│")[0]): index - 1 for index, line in enumerate(drawing) if line.split("│")[0].strip().isdigit()
    }
    points = sorted(positions(drawing, "●"))
    axis = next(index for index, line in enumerate(drawing) if "└" in line)
    for value, row in rows.items():
        if 10 <= value <= 90 and value % 10 == 0:
            assert abs(points[value // 10 - 1][1] - row) <= 1
    notches = [x - drawing[axis].index("└") - 1 for x, c in enumerate(drawing[axis]) if c == "┴"]
    numbers = [int(word) for word in drawing[axis + 1].split() if word.isdigit()]
    for value, column in zip(numbers, notches, strict=True):
        if 10 <= value <= 90:
            assert abs(points[value // 10 - 1][0] - column) <= 1


def test_the_front_is_joined_as_a_staircase():
    summary = study([trial(0, 30, 60), trial(1, 40, 70)])
    assert front_line(summary) == [(30, 60), (40, 60), (40, 70)]
    assert any("⠀" < c <= "⣿" for line in lines(summary) for c in line)


def test_named_points_lie_on_top_and_a_hidden_one_is_said_to_be():
    summary = study([trial(0, 47.2, 77.4, published=True), trial(1, 40, 70)], trial(None, 47.2, 77.4))
    drawing = lines(summary, chosen=0)
    assert len(positions(drawing, "★")) == 1 and not positions(drawing, "■")
    assert "chosen (trial 0)" in drawing[-1] and "baseline, hidden by another" in drawing[-1]


@pytest.mark.parametrize("width", [MINIMUM_WIDTH, 60, 80, 140])
def test_no_line_is_wider_than_asked(width):
    summary = random_study(500, raced=100, failed=3, running=2)
    assert max(map(len, lines(summary, summary.front[0], width=width))) <= width


def test_too_narrow_or_nothing_to_draw_gives_nothing():
    assert not scatter(random_study(), None, width=MINIMUM_WIDTH - 1)
    assert not scatter(study([], None), None, width=80)
    assert not scatter(study([trial(0, None, None, "failed")], None), None, width=80)


def test_ascii_only_has_nothing_else():
    summary = random_study(50, raced=5)
    drawing = lines(summary, summary.front[0], ascii_only=True)
    assert all(line.isascii() for line in drawing)
    assert positions(drawing, "*") and positions(drawing, "B") and positions(drawing, "x")


def test_overlays_are_drawn_and_named_for_what_they_are():
    point = OverlayPoint("VCD", {"chair_s": 45.0, "f1": 70.0}, reported=True, source="a paper")
    drawing = lines(study([trial(0, 40, 75)]), overlays=[point])
    assert len(positions(drawing, "◇")) == 1
    assert "reported, other images" in "".join(drawing)


def test_running_and_failed_trials_are_counted_but_not_drawn():
    summary = study([trial(0, 40, 75), trial(1, 10, 99, "running", images=3), trial(2, None, None, "failed")])
    assert {mark.trial.number for mark in marks(summary, None)} == {None, 0}
    assert lines(summary)[-1] == "not drawn: 1 failed, 1 in work"


percent = st.floats(0, 100, allow_nan=False)


@given(
    st.lists(st.tuples(percent, percent, st.sampled_from(["complete", "raced", "running"])), max_size=30),
    st.integers(MINIMUM_WIDTH, 150),
    st.booleans(),
)
def test_any_study_can_be_drawn(points, width, ascii_only):
    summary = study([trial(n, x, y, state) for n, (x, y, state) in enumerate(points)])
    chosen = summary.front[0] if summary.front else None
    drawing = lines(summary, chosen, width=width, ascii_only=ascii_only)
    assert max(map(len, drawing)) <= width
    assert len(positions(drawing, "*" if ascii_only else "★")) == (chosen is not None)
    corners = front_line(summary)
    assert all(x0 <= x1 and y0 <= y1 for (x0, y0), (x1, y1) in itertools.pairwise(corners))


def test_roles_and_their_looks():
    summary = study([trial(0, 40, 75, published=True), trial(1, 45, 70), trial(2, 44, 60, "raced")])
    assert [roles(summary, t, chosen=0) for t in summary.trials] == [
        ["chosen", "published", "front"],
        ["complete"],
        ["raced"],
    ]
    for look in ("glyph", "ascii_glyph"):
        assert len({getattr(entry, look) for entry in LOOKS.values()}) == len(LOOKS)
    assert set(OBJECTIVES) == {"chair_s", "f1"}
