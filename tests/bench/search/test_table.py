"""Recorded tables: what is written comes back, and what is damaged is refused."""

import io
import json
import zipfile

import numpy as np
import pytest
from recorded_worlds import SMALL_AXES, made_up_table

from kvtune.bench.search.settings import AXES, SETS, grid_settings, methods_of
from kvtune.bench.search.table import KEPT, load_table
from kvtune.chair import COLUMNS
from kvtune.errors import RequestError
from kvtune.spaces import load_space, spaces_folder


def test_grid_covers_the_demo_space():
    space = load_space(spaces_folder() / "kvsmooth" / "demo.yaml").fitted(16)
    settings = grid_settings()
    assert list(AXES) == list(space.parameters)
    assert len(settings) == len({tuple(setting.items()) for setting in settings}) == 540
    for setting in settings:
        assert space.point(space.full(setting)) == setting


def test_grid_holds_the_published_preset():
    from kvtune.presets import load_preset

    published = load_preset("demo").method().parameters()
    for chosen in SETS.values():
        assert {name: published[name] for name in AXES} in chosen.settings


def test_sets_share_no_scene_with_each_other_or_with_the_demo():
    from kvtune.demo.coco import FIRST_ID, SCENES

    demo = set(range(FIRST_ID, FIRST_ID + SCENES))
    grid, pool = (set(chosen.scenes) for chosen in SETS.values())
    assert len(grid) == 300 and len(pool) == 2000
    assert not grid & pool and not (grid | pool) & demo and min(grid | pool) > max(demo)


def test_methods_are_told_apart_by_what_they_do():
    settings = grid_settings({**SMALL_AXES, "clip_width": (0.0, 0.1), "lambda_ref": (0.0, 0.3)})
    methods, which = methods_of(settings)
    for setting, method in zip(settings, which, strict=True):
        if setting["lambda_ref"] == setting["clip_width"] == 0:
            assert method == 0 and methods[method] is None
        else:
            same = dict(methods[method])
            if setting["clip_width"] == 0:
                same["queue_length"] = setting["queue_length"]
            assert same == setting
    layers = 2 * 2
    assert len(methods) == 1 + layers * (0 + 2 + 1 + 2)  # (0, 0), (0, 0.1), (0.3, 0), (0.3, 0.1)


def test_what_is_saved_comes_back(tmp_path):
    table = made_up_table(7)
    table.save(tmp_path / "table.npz")
    again = load_table(tmp_path / "table.npz")
    assert again.recorded == table.recorded and again.truth == table.truth
    np.testing.assert_array_equal(again.outcomes, table.outcomes)


def test_counts_are_those_of_the_scorer():
    table = made_up_table(5)
    counts = table.counts()
    for method, image in np.ndindex(*counts.shape[:2]):
        row = dict(zip(COLUMNS, counts[method, image].tolist(), strict=True))
        kept = dict(zip(KEPT, table.outcomes[image, method].tolist(), strict=True))
        assert row["captions"] == 1 and row["present"] == len(list(table.truth.values())[image])
        assert row["hallucinated_captions"] == (kept["hallucinated_mentions"] > 0)
        assert all(row[name] == kept[name] for name in KEPT if name != "at_limit")


def damaged(table, change):
    """The file of a table after ``change`` of (metadata, outcomes)."""
    document = table.recorded.model_dump(mode="json") | {
        "truth": {str(image_id): names for image_id, names in table.truth.items()}
    }
    document, outcomes = change(document, np.transpose(table.outcomes, (2, 1, 0)).copy())
    data = io.BytesIO()
    np.savez_compressed(data, metadata=np.frombuffer(json.dumps(document).encode(), dtype=np.uint8), outcomes=outcomes)
    return data.getvalue()


def put(outcomes, column, value):
    outcomes[KEPT.index(column), 3, 0] = value
    return outcomes


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda document, outcomes: (document | {"format": "kvtune-outcomes/2"}, outcomes), "format"),
        (lambda document, outcomes: (document | {"more": 1}, outcomes), "unknown key 'more'"),
        (lambda document, outcomes: ({**document, "truth": None}, outcomes), "no ground truth"),
        (lambda document, outcomes: (document, outcomes[:, :-1]), "not uint8"),
        (lambda document, outcomes: (document, outcomes.astype(np.int64)), "not uint8"),
        (lambda document, outcomes: (document, put(outcomes, "correct", 90)), "contradict"),
        (lambda document, outcomes: (document, put(outcomes, "hallucinated_mentions", 200)), "contradict"),
        (lambda document, outcomes: (document, put(outcomes, "mentioned", 200)), "contradict"),
        (lambda document, outcomes: (document, put(outcomes, "at_limit", 2)), "contradict"),
        (lambda document, outcomes: (document | {"truth": {"1": ["dog"]}}, outcomes), "not uint8"),
        (lambda document, outcomes: (document | {"settings": document["settings"][:-1]}, outcomes), "not uint8"),
    ],
)
def test_a_table_that_contradicts_itself_is_refused(tmp_path, change, message):
    path = tmp_path / "table.npz"
    path.write_bytes(damaged(made_up_table(4), lambda *both: both))
    load_table(path)
    path.write_bytes(damaged(made_up_table(4), change))
    with pytest.raises(RequestError, match=message):
        load_table(path)


def test_a_file_that_is_no_table_is_refused(tmp_path):
    path = tmp_path / "table.npz"
    with pytest.raises(RequestError, match="does not exist"):
        load_table(path)
    made_up_table(3).save(path)
    whole = path.read_bytes()
    torn = bytearray(whole)
    torn[whole.index(b"outcomes.npy") + 40] ^= 0x55
    for content in (b"", b"text", bytes(torn), whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(RequestError, match="damaged"):
            load_table(path)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("other.txt", "")
    with pytest.raises(RequestError, match="damaged"):
        load_table(path)
