"""Denied mentions: marked, never left out."""

import pytest

from kvtune.chair.denials import denied
from kvtune.chair.spans import MentionFinder

FIND = MentionFinder()


@pytest.mark.parametrize(
    ("caption", "found"),
    [
        ("There is no couch in the room with a dog.", ["couch"]),
        ("No people, cars, or dogs are there.", ["person", "car", "dog"]),
        ("A street without a car or a truck.", ["car", "truck"]),
        ("There isn't a dog. A cat.", ["dog"]),
        ("There isn’t any dog.", ["dog"]),
        ("A man but no dog and a cat on a couch.", ["dog"]),
        ("A couch is not visible, a dog is.", ["couch"]),
        ("There are no other people visible.", ["person"]),
        ("Neither a dog nor a cat.", ["dog", "cat"]),
        ("A kitchen devoid of people.", ["person"]),
        ("A man does not have a surfboard.", ["surfboard"]),
        ("A dog.", []),
        ("Not only a dog but a cat.", []),
        ("No one is sitting on the couch.", []),
        ("There is no doubt that the dog is happy.", []),
        ("The dog is not on the couch.", []),
        ("A dog with no leash and a cat.", []),
        ("He is not riding a bicycle.", []),
        ("There is no end: a dog, a cat.", []),
        ('A chair is not there, a hot "dog" is.', ["chair"]),  # whose dog is counted but cannot be located
        ("", []),
    ],
)
def test_denials(caption, found):
    assert [category for _, _, category in denied(caption, FIND)] == found
