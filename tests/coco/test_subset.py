"""Draws are the same everywhere, disjoint where they must be; files say what is wrong with them."""

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvtune.coco import OPERA500, CocoFolder, Subset, draw, holdout_beside, named_subsets, tune_and_holdout
from kvtune.coco.subset import ids_sha256
from kvtune.errors import KvtuneError, RequestError

ids = st.lists(st.integers(0, 600_000), min_size=1, max_size=60, unique=True)


def test_sha256_as_a_shell_computes_it():
    # printf 42,7,139 | sha256sum
    assert ids_sha256([42, 7, 139]) == "984a22538d839c61dc3e66aad5b784bb6e36d53493543dcb549d4daa97e1c5ae"


def test_draw_is_pinned():
    """The same on every platform and version: these are the ids of the definition, computed step by step."""
    order = sorted(range(1, 101), key=lambda i: hashlib.sha256(f"7:{i}".encode()).hexdigest())
    assert draw("val2014", range(1, 101), 5, seed=7).image_ids == tuple(order[:5])


@given(ids, st.integers(), st.data())
def test_draws(pool, seed, data):
    images = data.draw(st.integers(1, len(pool)))
    subset = draw("val2014", pool, images, seed)
    assert len(subset.image_ids) == len(set(subset.image_ids)) == images
    assert set(subset.image_ids) <= set(pool)
    assert subset == draw("val2014", data.draw(st.permutations(pool)), images, seed)
    assert subset.image_ids == draw("val2014", pool, len(pool), seed).image_ids[:images]
    assert (subset.source, subset.seed) == ("val2014", seed)


@given(ids, st.data())
def test_excluded_ids_are_not_drawn_and_the_rest_keeps_its_order(pool, data):
    exclude = set(data.draw(st.lists(st.sampled_from(pool), max_size=len(pool) - 1)))
    rest = draw("val2014", pool, len(pool) - len(exclude), 3, exclude)
    assert rest.image_ids == tuple(i for i in draw("val2014", pool, len(pool), 3).image_ids if i not in exclude)


def test_seeds_differ():
    draws = {draw("val2014", range(1000), 10, seed).image_ids for seed in range(20)}
    assert len(draws) == 20


def test_draws_are_spread_over_the_pool():
    """The mean of 10,000 ids drawn from 0 to 99,999 has a standard error of 100,000 / sqrt(12 * 10,000) = 289."""
    drawn = draw("val2014", range(100_000), 10_000, 0).image_ids
    assert abs(sum(drawn) / len(drawn) - 49_999.5) < 5 * 289


def test_too_many_or_none():
    with pytest.raises(RequestError, match=r"11 images were asked for, but val2014 has only 10 "):
        draw("val2014", range(12), 11, 0, exclude=[3, 4])
    with pytest.raises(RequestError, match="at least 1"):
        draw("val2014", range(12), 0, 0)


@given(ids, st.integers() | st.none(), st.text(min_size=1))
def test_file_round_trip(tmp_path_factory, pool, seed, name):
    path = tmp_path_factory.mktemp("subset") / "subset.json"
    subset = Subset.of(name, "val2014", pool, seed)
    subset.save(path)
    assert Subset.load(path) == subset
    assert json.loads(path.read_text()) == {
        "format": "kvtune-subset/1",
        "name": name,
        "source": "val2014",
        "seed": seed,
        "image_ids": pool,
        "sha256": hashlib.sha256(",".join(str(i) for i in pool).encode()).hexdigest(),
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d | {"shuffle": True}, "unknown key 'shuffle'"),
        (lambda d: {k: v for k, v in d.items() if k != "source"}, "the key 'source' is missing"),
        (lambda d: {k: v for k, v in d.items() if k != "format"}, "the key 'format' is missing"),
        (lambda d: {k: v for k, v in d.items() if k != "sha256"}, "the key 'sha256' is missing"),
        (lambda d: d | {"format": "kvtune-subset/2"}, "'format' must be 'kvtune-subset/1'"),
        (lambda d: d | {"image_ids": [3, 4, 3]}, "image id 3 is there twice"),
        (lambda d: d | {"image_ids": []}, "'image_ids' must be a list of at least 1"),
        (lambda d: d | {"image_ids": ["3"]}, "'image_ids.0' must be a whole number"),
        (lambda d: d | {"image_ids": [True]}, "'image_ids.0' must be a whole number"),
        (lambda d: d | {"image_ids": [-3]}, "'image_ids.0' must be at least 0, not -3"),
        (lambda d: d | {"image_ids": [4, 3]}, "sha256 does not match"),
        (lambda d: d | {"sha256": "0" * 64}, "sha256 does not match"),
        (lambda d: d | {"name": ""}, "'name' must be a text"),
        (lambda d: d | {"seed": "0"}, "'seed' must be a whole number"),
        (lambda d: [d], "it must be an object"),
    ],
)
def test_bad_files(tmp_path, change, message):
    path = tmp_path / "bad.json"
    document = Subset.of("mine", "val2014", [3, 4], 0).model_dump(mode="json")
    path.write_text(json.dumps(change(document)))
    with pytest.raises(RequestError, match=f"bad.json.*{message}") as error:
        Subset.load(path)
    assert "\n" not in str(error.value)


def test_no_such_subset(tmp_path):
    with pytest.raises(RequestError, match=r"no subset 'opera50', did you mean 'opera500'[?].*kvtune data subset"):
        Subset.load("opera50")
    (tmp_path / "cut.json").write_text('{"format": "kvtune-su')
    with pytest.raises(RequestError, match=r"cut\.json is not valid JSON"):
        Subset.load(tmp_path / "cut.json")
    with pytest.raises(RequestError, match="cannot be read"):
        Subset.load(tmp_path)


def test_saving_where_no_folder_can_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(KvtuneError, match="cannot write"):
        Subset.of("mine", "val2014", [3]).save(tmp_path / "file" / "subset.json")


def test_opera500_is_the_published_set(shared_data):
    lines = (shared_data / "chair" / "llava15_greedy_captions.jsonl").read_text().splitlines()
    assert Subset.load(OPERA500).image_ids == tuple(json.loads(line)["image_id"] for line in lines)


def test_opera500_ships():
    assert named_subsets() == [OPERA500]
    subset = Subset.load(OPERA500)
    assert (subset.name, subset.source, subset.seed, len(subset.image_ids)) == ("opera500", "val2014", None, 500)
    assert subset.image_ids[:3] == (226988, 337443, 112022)
    assert subset.sha256 == "8e6d37b0baa8afa603e8b238cc35f705ca251b8abef2954d5f2a7526bee44558"


@pytest.fixture
def folder(make_coco):
    """A val2014 of 40 images, 10 of them in opera500, and a val2017."""
    reserved = Subset.load(OPERA500).image_ids[:10]
    root = make_coco("val2014", [*reserved, *range(1, 31)])
    make_coco("val2017", [*range(50, 60), reserved[0]], root=root)
    return CocoFolder(root)


def test_tune_and_holdout_are_disjoint_from_each_other_and_from_opera500(folder):
    tune, holdout = tune_and_holdout(folder, 20, 10, seed=1)
    opera = Subset.load(OPERA500)
    assert sorted(tune.image_ids + holdout.image_ids) == list(range(1, 31))
    assert tune.overlap(holdout) == tune.overlap(opera) == holdout.overlap(opera) == 0
    assert opera.overlap(opera) == 500
    assert tune.source == holdout.source == "val2014"
    assert tune.name != holdout.name
    assert (tune, holdout) == tune_and_holdout(folder, 20, 10, seed=1)
    assert tune.image_ids != tune_and_holdout(folder, 20, 10, seed=2)[0].image_ids


def test_holdout_beside_given_images(folder):
    given = Subset.of("mine", "val2014", [3, 4, *Subset.load(OPERA500).image_ids[:2]])
    holdout = holdout_beside(folder, given, 28, seed=0)
    assert sorted(holdout.image_ids) == [1, 2, *range(5, 31)]
    with pytest.raises(RequestError, match=r"29 held-out .* only 28 outside mine and opera500; .*--holdout-images"):
        holdout_beside(folder, given, 29, seed=0)
    tune, drawn = tune_and_holdout(folder, 10, 5, seed=3)
    assert drawn == holdout_beside(folder, tune, 5, seed=3)


def test_tune_and_holdout_of_another_split(folder):
    tune, holdout = tune_and_holdout(folder, 6, 4, seed=0, source="val2017")
    assert sorted(tune.image_ids + holdout.image_ids) == list(range(50, 60))


def test_tune_and_holdout_without_val2014(shared_data):
    tune, holdout = tune_and_holdout(CocoFolder(shared_data / "coco-mini"), 40, 30)
    assert tune.source == "val2017"
    assert tune.overlap(holdout) == 0


def test_too_few_for_tune_and_holdout(folder):
    with pytest.raises(RequestError, match=r"20 tune and 11 held-out .* only 30 outside opera500; .*--images"):
        tune_and_holdout(folder, 20, 11)
