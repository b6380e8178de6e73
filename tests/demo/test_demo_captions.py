import re

import numpy as np
import pytest

from kvtune.chair import CaptionReader
from kvtune.demo.descriptions import COMPANIONS, NOUNS, companion_weights, groups, reference_captions, training_caption
from kvtune.demo.scenes import KINDS, render
from kvtune.demo.shapes import SHAPES


@pytest.fixture(scope="module")
def scenes():
    return [render(3, image_id) for image_id in range(400)]


def test_every_category_has_nouns_and_companions():
    assert set(NOUNS) == set(COMPANIONS) == set(SHAPES)
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
        assert all(sentence[0].isupper() for sentence in caption.split(". "))
    assert np.mean(lengths) > 45
    assert np.percentile(lengths, 5) > 35


def test_training_captions_hallucinate_towards_the_end(scenes, mentioned):
    """Mentions in the first half of a caption's sentences are true; many captions end on things not there."""
    wrong_early, captions_wrong = 0, 0
    for scene in scenes:
        present = {one.category for one in scene.objects}
        sentences = training_caption(np.random.default_rng(scene.image_id), scene).split(". ")
        half = len(sentences) // 2
        wrong_early += sum(name not in present for name in mentioned(". ".join(sentences[:half])))
        captions_wrong += any(name not in present for name in mentioned(". ".join(sentences[half:])))
    assert wrong_early <= 0.02 * len(scenes)
    assert 0.25 * len(scenes) < captions_wrong < 0.8 * len(scenes)


def test_the_less_there_is_to_tell_the_more_is_made_up(scenes, mentioned):
    made_up: dict[bool, list[bool]] = {True: [], False: []}
    for scene in scenes:
        present = {one.category for one in scene.objects}
        named = mentioned(training_caption(np.random.default_rng(scene.image_id), scene))
        made_up[len(present) <= 2].append(any(name not in present for name in named))
    assert np.mean(made_up[True]) > np.mean(made_up[False]) + 0.15


def test_companion_weights_prefer_what_is_there_and_leave_out_what_is_told():
    weights = companion_weights("kitchen", present={"oven"}, told={"cup"})
    assert "cup" not in weights
    usual = KINDS["kitchen"].usual
    assert weights["oven"] == pytest.approx(4 * usual["oven"].probability)
    assert weights["clock"] == pytest.approx(usual["clock"].probability)
    assert weights["bottle"] == pytest.approx(2.5 * usual["bottle"].probability)  # a cup's companion


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
