import io
from dataclasses import replace

import pytest
from rich.console import Console
from synthetic_studies import random_study, study, trial

from kvtune.report.compare import Compared, comparison_document, comparison_frame, comparison_table
from kvtune.report.figures.compare import comparison_figure


def compared(**changes):
    first = random_study(30, seed=1)
    second = replace(random_study(40, seed=2), study="minigpt4-kvsmooth", model="minigpt4", **changes)
    return [Compared(first, first.front[1]), Compared(second, None)]


def shown(studies, width=140):
    console = Console(file=io.StringIO(), width=width)
    console.print(comparison_table(studies, console))
    return console.file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 140])
def test_each_study_has_its_baseline_published_and_chosen_rows(width):
    studies = compared()
    text = shown(studies, width)
    assert max(map(len, text.split("\n"))) <= width and "…" not in text
    assert text.count("baseline") == 2 and text.count("0 published") == 2 and text.count("chosen") == 1
    chosen = next(t for t in studies[0].summary.trials if t.number == studies[0].chosen)
    assert f"{chosen.chair_s:.1f}" in text and f"{studies[1].summary.hypervolume:.1f}" in text


def test_different_images_are_said_to_be_so():
    assert "do not compare" not in shown(compared())
    others = compared(subset={"name": "other", "sha256": "cd" * 32, "images": 500})
    assert "rates of different studies do not compare" in shown(others)
    assert [comparison_document(s)["same_images"] for s in (compared(), others)] == [True, False]


def test_document_names_baseline_published_and_chosen():
    first, second = comparison_document(compared())["studies"]
    assert first["baseline"]["number"] is None and first["published"]["number"] == 0
    assert first["chosen"]["number"] == compared()[0].chosen and second["chosen"] is None


def test_the_frame_has_every_row_of_every_study():
    frame = comparison_frame(compared())
    assert frame.groupby("study")["state"].count().to_dict() == {"llava15-kvsmooth": 31, "minigpt4-kvsmooth": 41}
    assert set(frame["model"]) == {"llava-hf/llava-1.5-7b-hf", "minigpt4"}


def test_the_picture_names_every_study_and_fits_long_names():
    long = study([trial(0, 40, 80)], name="a-long-name-" * 8)
    two = [(each.summary, each.chosen) for each in compared()]
    figure = comparison_figure([*two, (long, 0), (study([], None, name="empty"), None)])
    figure.savefig(io.BytesIO(), format="png")
    labels = [text.get_text().replace("\n", "") for text in figure.legends[0].get_texts()]
    assert labels == ["llava15-kvsmooth", "minigpt4-kvsmooth", "a-long-name-" * 8, "empty", "baseline", "chosen"]
    box = figure.legends[0].get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1
