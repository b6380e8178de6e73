import re

import numpy as np
import pytest

from kvtune.chair import CaptionReader
from kvtune.demo import descriptions
from kvtune.demo.descriptions import COMPANIONS, HABITS, NOUNS, groups, reference_captions, training_caption
from kvtune.demo.scenes import render
from kvtune.demo.shapes import SHAPES


@pytest.fixture(scope="module")
def scenes():
    return [render(3, image_id) for image_id in range(400)]


def test_every_category_has_nouns_and_companions():
    assert set(NOUNS) == set(COMPANIONS) == set(HABITS) == set(SHAPES)
    assert all(0 < strength < 1 for strength in HABITS.values())
    for companions in COMPANIONS.values():
        assert set(companions) <= set(SHAPES)


def test_reference_captions_are_short_true_and_five(scenes, mentioned):
    for scene in scenes:
        captions = reference_captions(np.random.default_rng(scene.image_id), scene)
        assert len(captions) == 5
        for caption in captions:
            named = mentioned(caption)
            assert named
            assert set(named) <= {one.category for one in scene.objects}
            assert len(caption.split()) <= 25
            assert caption[0].isupper()
            assert caption.endswith(".")


def test_reference_captions_count_truly(scenes):
    numbers = {"two": 2, "three": 3}
    counted = 0
    for scene in scenes:
        plural = {noun[1]: g for g in groups(scene) for noun in NOUNS[g.category]}
        for caption in reference_captions(np.random.default_rng(scene.image_id), scene):
            for word, noun in re.findall(r"\b(two|three) (?:small |large )?(?:\w+ )?(\w+)\b", caption):
                if noun in plural:
                    assert len(plural[noun].objects) == numbers[word], caption
                    counted += 1
    assert counted > 50


def test_training_captions_are_long_and_seeded(scenes):
    lengths = []
    for scene in scenes:
        caption = training_caption(np.random.default_rng(scene.image_id), scene)
        assert caption == training_caption(np.random.default_rng(scene.image_id), scene)
        lengths.append(len(caption.split()))
        sentences = caption.split(". ")
        assert len(sentences) == 6
        assert all(sentence[0].isupper() for sentence in sentences)
    assert np.mean(lengths) > 50
    assert np.percentile(lengths, 5) > 40


def test_training_captions_find_to_the_end_and_make_up_more_and_more(scenes, mentioned):
    """The shape of LLaVA-1.5's captions: true objects to the last part, false ones early too, more often late."""
    true, false = np.zeros(6), np.zeros(6)
    for scene in scenes:
        present = {one.category for one in scene.objects}
        caption = training_caption(np.random.default_rng(scene.image_id), scene)
        told: set[str] = set()
        for place, sentence in enumerate(caption.split(". ")):
            new = set(mentioned(sentence)) - told
            true[place] += len(new & present)
            false[place] += len(new - present)
            told |= new
    true, false = true.cumsum() / len(scenes), false.cumsum() / len(scenes)
    assert 0.45 < true[0] / true[-1] < 0.7
    assert np.all(np.diff(true[:5]) > 0.2)
    assert np.all(np.diff(false[:5]) > 0.005)
    assert false[4] - false[2] > false[2] - false[0]


def test_a_habit_is_the_first_usual_companion_that_was_not_told():
    assert descriptions._habit("kitchen", "bottle", ["bottle"]) == ("cup", HABITS["bottle"])
    assert descriptions._habit("kitchen", "bottle", ["cup", "bottle"]) == ("bowl", HABITS["bottle"])
    assert descriptions._habit("kitchen", "bottle", ["bowl", "cup", "bottle"]) is None
    assert descriptions._habit("snow", "horse", ["horse"]) == ("person", HABITS["horse"])  # no cow in the snow


def test_habit_wins_more_often_late_and_where_nothing_is_seen(scenes):
    group = next(g for scene in scenes for g in groups(scene) if g.category == "clock")
    rng = np.random.default_rng(0)

    def share(seen, sentence):
        return np.mean(
            [descriptions._next(rng, "kitchen", seen, ["oven"], sentence) == "refrigerator" for _ in range(900)]
        )

    assert share(None, 4) > share(None, 1) + 0.15
    assert share(None, 4) > share(group, 4) + 0.03
    assert descriptions._next(rng, "snow", group, ["dog", "bench", "person"], 4) is group  # no companion is left
    assert descriptions._next(rng, "snow", None, ["dog", "bench", "person"], 4) is None


def test_articles_and_verbs_agree(scenes):
    for scene in scenes:
        rng = np.random.default_rng(scene.image_id)
        for text in [training_caption(rng, scene), *reference_captions(rng, scene)]:
            assert not re.search(r"\b[Aa] [aeiou]", text), text
            assert not re.search(r"\b[Aa]n [^aeiou]", text), text
            assert not re.search(r"there is (two|three|some)", text, re.IGNORECASE), text
            assert not re.search(r"there are an? (?!.* and )", text, re.IGNORECASE), text


def test_chair_reads_the_grammars_objects_and_nothing_else(scenes, mentioned):
    """ "men" apart: WordNet has it as a word of its own, so CHAIR's lemma of it is no person."""
    reader = CaptionReader()
    for scene in scenes:
        rng = np.random.default_rng(scene.image_id)
        for text in [training_caption(rng, scene), *reference_captions(rng, scene)]:
            text = re.sub(r"\bmen\b", "people", text)
            assert reader.read(text).mentions == mentioned(text), text
