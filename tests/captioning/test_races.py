"""Nothing is written twice with different numbers in one operation: on a GPU nobody says which of them stays."""

import pytest
import torch
from engine_requests import METHODS as OF_ENGINE
from engine_requests import check, requests_of, vlm
from method_matrix import METHODS, generate, method_of, tried
from no_races import NoRaces

from kvtune.captioning import Captioner, planning
from kvtune.captioning.paged_attention import LANES


def test_is_seen():
    tensor, twice = torch.zeros(3, 2), torch.tensor([1, 1])
    with NoRaces():
        tensor[twice] = 1.0
        tensor.scatter_(1, twice[None], torch.ones(1, 2))
    with NoRaces(), pytest.raises(AssertionError, match=r"writes \[1, 0\]"):
        tensor[twice] = torch.tensor([[1.0], [2.0]])
    with NoRaces(), pytest.raises(AssertionError, match=r"writes \[0, 1\]"):
        tensor.scatter_(1, twice[None], torch.tensor([[1.0, 2.0]]))
    with NoRaces(lambda place, size: (place, size) == (1, 3)):
        tensor[twice] = torch.tensor([[1.0], [2.0]])


@pytest.mark.parametrize("case", METHODS)
def test_around_generate(case):
    of = tried("grouped heads")
    with NoRaces() as mode, method_of(case)(of.model):
        generate(of.model, of.batch)
    assert mode.writes


def test_in_pages(monkeypatch):
    monkeypatch.setattr(planning, "uses_pages", lambda vlm: True)
    captioner = Captioner(vlm("grouped"), max_new_tokens=20, lanes=11)
    requests = requests_of([(n % 5, n % len(OF_ENGINE)) for n in range(2 * len(OF_ENGINE))])

    def nobody(place, size):
        """The row of lanes in which nobody is, the page of rows that stand idle, and the first lane of a tile more."""
        plan = captioner.plan
        return (place, size) in ((plan.rows, plan.rows + 1), (0, plan.pages + 1)) or place == size - LANES > 0

    with NoRaces(nobody) as mode:
        captions = list(captioner.run(iter(requests)))
    assert mode.writes > 1000
    check(captions, requests, "grouped", 20)


def test_in_groups():
    captioner = Captioner(vlm("grouped"), max_new_tokens=20, lanes=11)
    requests = requests_of([(n % 5, n % len(OF_ENGINE)) for n in range(2 * len(OF_ENGINE))])
    with NoRaces() as mode:
        captions = list(captioner.run(iter(requests)))
    assert mode.writes > 1000
    check(captions, requests, "grouped", 20)
