import io
import re
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from rich.console import Console
from synthetic_studies import random_study, study, trial, validation

from kvtune.analysis.selection import Choice, choose
from kvtune.presets import SubsetInfo
from kvtune.report.data.compare import Compared, comparison_document, comparison_frame
from kvtune.report.figures.compare import comparison_figure
from kvtune.report.figures.drawing import PALETTE
from kvtune.report.terminal.compare import comparison_table


def compared(**changes):
    first = random_study(30, seed=1)
    second = replace(random_study(40, seed=2), study="minigpt4-kvsmooth", model="minigpt4", **changes)
    return [
        Compared(first, choose(first, f"trial:{first.front[1]}")),
        Compared(second, Choice(None, "keep-f1", "no trial keeps the baseline's F1")),
    ]


def shown(studies, width=140):
    console = Console(file=io.StringIO(), width=width)
    console.print(comparison_table(studies, console))
    return console.file.getvalue()


@pytest.mark.parametrize("width", [60, 80, 140])
def test_intervals_and_held_out_results_stand_beside_the_rates(width):
    first = random_study(30, seed=1, width=2.5)
    chosen = first.front[0]
    validated = replace(first, validation=validation(first, [None, chosen], chair_s=33.0, f1=66.0, width=4.0))
    text = shown([Compared(validated, choose(first, f"trial:{chosen}")), *compared()], width)
    assert max(map(len, text.split("\n"))) <= width and "…" not in text
    rates = next(trial for trial in first.trials if trial.number == chosen)
    assert f"{rates.rate('chair_s') - 2.5:.1f}-{rates.rate('chair_s') + 2.5:.1f}" in text
    assert text.count("29.0-37.0") == text.count("62.0-70.0") == 2
    assert text.count("held-out") >= 2 and "held-out" not in shown(compared(), width)


@pytest.mark.parametrize("width", [60, 80, 140])
def test_each_study_has_its_baseline_published_and_chosen_rows(width):
    studies = compared()
    text = shown(studies, width)
    assert max(map(len, text.split("\n"))) <= width and "…" not in text
    rows = re.findall(r"^ [■▲★] (?:\d+ )?(baseline|published|chosen)", text, re.MULTILINE)
    assert rows == ["baseline", "published", "chosen", "baseline", "published"]
    told = " ".join(text.split())
    assert "minigpt4-kvsmooth: no trial keeps the baseline's F1." in told
    assert f"not validated on others: trial {studies[0].chosen} of llava15-kvsmooth." in told
    chosen = next(t for t in studies[0].summary.trials if t.number == studies[0].chosen)
    assert f"{chosen.rate('chair_s'):.1f}" in text and f"{studies[1].summary.hypervolume:.1f}" in text


def test_different_images_are_said_to_be_so():
    assert "do not compare" not in shown(compared())
    others = compared(subset=SubsetInfo(name="other", sha256="cd" * 32, images=500))
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


def test_studies_with_the_same_points_are_all_seen():
    first = random_study(30, seed=1)
    studies = [(replace(first, study=name), first.front[1]) for name in ("one", "other", "third")]
    figure = comparison_figure(studies)
    figure.legends[0].remove()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    colours, counts = np.unique(np.asarray(canvas.buffer_rgba())[..., :3].reshape(-1, 3), axis=0, return_counts=True)
    seen = {tuple(colour): count for colour, count in zip(colours.tolist(), counts, strict=True)}
    for colour in PALETTE[:3]:
        assert seen.get(tuple(bytes.fromhex(colour[1:])), 0) > 20, f"{colour} is hidden"
