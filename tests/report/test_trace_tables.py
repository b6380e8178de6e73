"""Traced captions as tables and pictures."""

from pathlib import Path

import numpy as np
import pytest

from kvtune.captioning.request import Caption
from kvtune.captioning.side_by_side import TracedPair
from kvtune.captioning.trace import Trace, Word
from kvtune.chair.spans import MentionFinder
from kvtune.errors import RequestError
from kvtune.report.data.mentions import mentions, objects_to_show, vocabulary_words
from kvtune.report.figures.drawing import COLUMN_WIDTH
from kvtune.report.figures.trace import trace_figure
from kvtune.report.trace_files import layers_frame, objects_frame, write_trace

FINDER = MentionFinder()
WORDS = tuple(
    Word(text, number, "▁" + text.split()[0], " " not in text)
    for number, text in enumerate(["person", "dog", "dogs", "man", "hot dog", "sofa", "couch", "grass"])
)
LAYERS = 2


def traced(*pieces, smoothed=(), words=WORDS):
    """A trace whose tokens spell these pieces, and an end of text."""
    text = "".join(pieces)
    starts = np.cumsum([0, *map(len, pieces)])
    count = len(pieces) + 1
    values = np.arange(count * LAYERS, dtype=float).reshape(count, LAYERS)
    values[-1] = np.nan
    smoothing = np.full_like(values, np.nan)
    smoothing[:-1, smoothed] = 0.5
    ranks = np.arange(count * len(words)).reshape(count, len(words)) + 1
    return Trace(
        Caption(0, text, tuple(range(len(pieces))), "eos"),
        tuple(range(count)),
        (*pieces, "</s>"),
        tuple(starts),
        values,
        smoothing,
        words,
        ranks,
        -ranks.astype(float),
    )


BASELINE = traced("A", " man", " with", " a", " hot", " dog", " and", " Dogs", ".")
TREATED = traced("A", " man", ".", smoothed=[1])
PAIR = TracedPair(Path("folder/COCO_val2014_000000000007.jpg"), BASELINE, TREATED)
TRUTH = {"person", "dog", "couch"}


def test_mentions_begin_at_the_token_of_their_word():
    found = [(one.position, one.word, one.category, one.in_picture) for one in mentions(BASELINE, TRUTH, FINDER)]
    assert found == [(1, "man", "person", True), (4, "hot dog", "hot dog", False), (7, "dogs", "dog", True)]
    assert [one.in_picture for one in mentions(BASELINE, None, FINDER)] == [None] * 3
    split = traced("A", " ", "man", " and", " d", "og")
    assert [one.position for one in mentions(split, None, FINDER)] == [2, 4]


def shown(pair, named=(), truth=None):
    return [(each.word, each.category, each.in_picture) for each in objects_to_show(pair, named, truth, FINDER)]


def test_objects_are_those_named_in_a_caption_and_those_in_the_picture():
    assert shown(PAIR, truth=TRUTH) == [
        ("man", "person", True),
        ("person", "person", True),
        ("hot dog", "hot dog", False),
        ("dogs", "dog", True),
        ("dog", "dog", True),
        ("couch", "couch", True),
    ]
    assert [word for word, _, _ in shown(PAIR)] == ["man", "person", "hot dog", "dogs", "dog"]
    assert {known for _, _, known in shown(PAIR)} == {None}
    assert shown(PAIR, ["grass", "sofa"], TRUTH) == [("grass", None, None), ("sofa", "couch", True)]
    nothing = TracedPair(PAIR.image, traced("A", " view", "."), None)
    assert shown(nothing) == [] and shown(nothing, truth={"zebra"}) == []  # a word that the model cannot spell


def test_every_word_of_the_metric_can_be_looked_at():
    words = vocabulary_words()
    assert len(words) == len(set(words)) and {"dog", "dogs", "man", "women", "traffic light"} <= set(words)


def test_a_row_for_every_token_and_layer():
    frame = layers_frame([PAIR], [TRUTH], FINDER)
    assert len(frame) == (10 + 4) * LAYERS
    one = frame.query("caption == 'baseline' and position == 4 and layer == 1").iloc[0]
    assert (one.image, one.token_id, one.token, one.mention, one.in_picture) == (
        str(PAIR.image), 4, " hot", "hot dog", False,
    )  # fmt: skip
    assert one.entropy == 9.0
    preset = frame[frame.caption == "preset"]
    assert preset.groupby("layer").smoothing.count().tolist() == [0, 3]
    assert preset[preset.position == 3].entropy.isna().all()
    assert frame[frame.mention.isna()].in_picture.isna().all()


def test_a_row_for_every_token_and_object():
    objects = objects_to_show(PAIR, ["dog", "grass"], TRUTH, FINDER)
    frame = objects_frame([PAIR], [TRUTH], [objects])
    assert len(frame) == (10 + 4) * 2
    one = frame.query("caption == 'baseline' and position == 3 and word == 'grass'").iloc[0]
    assert (one["rank"], one.logit) == (BASELINE.ranks[3, 7], BASELINE.logits[3, 7])
    assert (one.first_token, one.is_whole) == ("▁grass", True) and one.isna()[["object", "in_picture"]].all()
    assert frame[frame.word == "dog"].in_picture.all()
    assert len(objects_frame([PAIR], [TRUTH], [[]])) == 0


def test_the_picture_fits_a_column_and_marks_what_is_not_there():
    objects = objects_to_show(PAIR, (), TRUTH, FINDER)
    figure = trace_figure(PAIR, TRUTH, objects, FINDER)
    figure.draw_without_rendering()
    assert figure.get_figwidth() == COLUMN_WIDTH
    panels = [axes for axes in figure.axes if axes.get_title(loc="left")]
    names = [axes.get_title(loc="left").split(":")[0] for axes in panels]
    assert names == ["baseline", "preset", "preset", "baseline", "preset"]
    lines = {line.get_label(): line for line in panels[3].lines if not line.get_label().startswith("_")}
    assert list(lines) == ["hot dog, not there", "man, there", "dogs, there", "couch, there"]
    assert [line.get_linestyle() for line in lines.values()] == ["--", "-", "-", "-"]
    assert lines["dogs, there"].get_ydata().tolist() == BASELINE.ranks[:, 2].tolist()
    legend = figure.legends[0]
    assert [text.get_text() for text in legend.get_texts()][-2:] == ["named, there", "named, not there"]
    box = legend.get_window_extent()
    assert box.x0 >= 0 and box.x1 <= figure.bbox.width
    maps = [image.get_array() for axes in panels[:3] for image in axes.images]
    assert np.array_equal(maps[0].filled(np.nan), BASELINE.entropy.T, equal_nan=True)


@pytest.mark.parametrize("pair", [TracedPair(PAIR.image, BASELINE, None), TracedPair(PAIR.image, traced(), traced())])
def test_a_picture_without_a_preset_and_of_empty_captions(pair):
    objects = objects_to_show(pair, (), None, FINDER)
    trace_figure(pair, None, objects, FINDER).draw_without_rendering()


def test_files_are_named_by_their_images(tmp_path):
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow", reason="Parquet needs the extra 'parquet'")
    pairs = [
        PAIR,
        TracedPair(Path("other") / PAIR.image.name, BASELINE, None),
        TracedPair(Path("x.png"), TREATED, None),
    ]
    paths = write_trace(tmp_path / "out", pairs, [TRUTH, None, None], (), FINDER)
    stem = PAIR.image.stem
    assert [path.name for path in paths] == ["layers.parquet", "objects.parquet"] + [
        f"{name}.{suffix}" for name in (f"{stem}-1", f"{stem}-2", "x") for suffix in ("png", "svg")
    ]
    assert all(path.stat().st_size > 500 for path in paths)
    frame = layers_frame(pairs, [TRUTH, None, None], FINDER)
    pd.testing.assert_frame_equal(pd.read_parquet(paths[0]), frame)
    assert pd.read_parquet(paths[1]).groupby("image").word.nunique().tolist() == [6, 5, 2]


def test_parquet_without_pyarrow_is_refused_before_anything(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r"kvtune\[parquet\]"):
        write_trace(tmp_path / "out", [PAIR], [TRUTH], (), FINDER)
    assert not (tmp_path / "out").exists()
