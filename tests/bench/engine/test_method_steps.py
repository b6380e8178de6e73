"""``kvtune bench engine --method``: which methods are timed, and what is said of them."""

import copy
import json

import pytest
import torch
from small_models import small_llava
from small_vlms import random_images, small_vlm

from kvtune.bench.engine.methods import bench_methods, method_list
from kvtune.captioning import Captioner
from kvtune.errors import RequestError
from kvtune.methods import method_names
from kvtune.report.terminal.engine_bench import methods_lines, methods_table


def bench(methods, **more):
    vlm = small_vlm(small_llava(0, kv_heads=2, dtype=torch.float32))
    return bench_methods(Captioner(vlm, None, 12, lanes=4), random_images(2), methods, 2, repeats=2, **more)


def test_methods_and_stacks_are_timed_in_turn_and_told_after_each():
    seen = []
    result = bench("pai,kvsmooth+ad_hh", keep=lambda result: seen.append(copy.deepcopy(result)))
    assert [len(turn["methods"]) and turn["methods"][0]["pairs"] for turn in seen] == [0, 1, 2]
    assert [turn["complete"] for turn in seen] == [False, False, True] and seen[-1] == result
    pai, stack = result["methods"]
    assert (pai["method"], pai["rows"], pai["parameters"]) == (
        "pai",
        4,
        {"alpha": 0.5, "start_layer": 0, "end_layer": 3},
    )
    assert stack["parameters"]["heads"] == [[0, 0], [1, 0], [2, 0]]
    assert result["ratios"] == {f"{one['method']}_over_none_per_step": one["ratio"] for one in (pai, stack)}
    assert result["ratios"].keys() == result["ratios_range"].keys()
    json.dumps(result)
    table = methods_table(result)
    assert list(table.columns[0].cells) == ["none", "pai", "kvsmooth+ad_hh"]
    assert methods_lines(result) == [
        "medians of 2 runs of 6 steps each, a ratio that of one run with the method and one without; processor: the "
        "least time of this process for a step of a run"
    ]
    assert methods_lines(seen[1])[-1] == "stopped early: what is missing was not measured"


def test_of_all_methods_those_that_cannot_serve_the_model_are_left_out(monkeypatch):
    monkeypatch.setattr("kvtune.methods.stack.method_names", lambda: ["dscr", "vaf"])
    monkeypatch.setattr("kvtune.models.VisionLanguageModel.has_places", False)
    result = bench("all")
    assert [one["method"] for one in result["methods"]] == ["vaf"]
    assert result["refused"].keys() == {"dscr"} and "places" in methods_lines(result)[1]
    with pytest.raises(RequestError, match=r"^dscr: .*places"):
        bench("dscr,vaf")


@pytest.mark.parametrize(
    ("methods", "message"),
    [("pia", "unknown method 'pia'"), ("pai,pai", "each once"), ("", "names of methods"), ("pai+pai", "pai twice")],
)
def test_wrong_names_are_refused(methods, message):
    with pytest.raises(RequestError, match=message):
        method_list(methods)


def test_all_are_all():
    assert method_list("all") == method_names()
