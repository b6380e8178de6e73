"""What each of several methods adds to a decode step, measured in one run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from PIL import Image

from kvtune.bench.engine.device import measure_device
from kvtune.bench.engine.steps import time_steps
from kvtune.bench.engine.workload import Workload
from kvtune.captioning import Captioner, CaptionRequest
from kvtune.captioning.planning import plan_for
from kvtune.errors import RequestError
from kvtune.methods import ALL, Method, get_method, listed_methods

_ROWS_ON_A_CPU = 64


def method_list(methods: str) -> list[str]:
    """The names in ``A,B+C,...``, or those of all methods.

    Raises
    ------
    RequestError
        If there is no such method, or one is named twice.
    """
    names = listed_methods(methods)
    if not names or len(set(names)) < len(names):
        raise RequestError("--method takes names of methods with commas between, each once, or all")
    return names


def bench_methods(
    captioner: Captioner,
    images: Sequence[Image.Image],
    methods: str,
    trials: int,
    *,
    repeats: int = 5,
    keep: Callable[[dict[str, Any]], None] = lambda result: None,
) -> dict[str, Any]:
    """Time decode steps without a method and with each, in turn, each at a setting from the middle of its ranges.

    Parameters
    ----------
    methods
        As for :func:`method_list`; of all there are, those that cannot serve the model are left out.
    trials
        Captions of one image in each step, of which there are as many as the captioner has lanes, at ``auto`` what fits
        on a GPU, and on a CPU few enough for seconds.
    keep
        Called with the result so far after each turn.

    Returns
    -------
    dict
        JSON-ready. ``methods`` has a dict for each: its name, parameters, and what
        :class:`kvtune.bench.engine.steps.StepTimes` says; ``ratios`` and ``ratios_range`` are by wall time;
        ``refused`` has why, by name, of those left out.

    Raises
    ------
    RequestError
        If a method that was named cannot serve the model.
    """
    vlm, work = captioner.vlm, Workload(captioner, images)
    able, refused = _able(captioner, images[0], methods)
    result: dict[str, Any] = {
        "model": vlm.name,
        "dtype": vlm.dtype_name,
        "cuda_graphs": captioner.cuda_graphs and vlm.device.type == "cuda",
        "device": dataclasses.asdict(measure_device(vlm.device, vlm.dtype)),
        "trials": trials,
        "methods": [],
        "ratios": {},
        "ratios_range": {},
        "refused": refused,
        "complete": False,
    }
    keep(result)
    for turn, times in enumerate(time_steps(work, able, _rows(work, trials), trials, repeats), 1):
        result["methods"] = found = [
            {"method": name, "parameters": able[name].parameters()} | of_method.to_dict()
            for name, of_method in times.items()
        ]
        result["ratios"] = {f"{one['method']}_over_none_per_step": one["ratio"] for one in found}
        result["ratios_range"] = {f"{one['method']}_over_none_per_step": one["ratio_range"] for one in found}
        result["complete"] = turn == repeats
        keep(result)
    return result


def _able(captioner: Captioner, image: Image.Image, methods: str) -> tuple[dict[str, Method], dict[str, str]]:
    """The methods by name, and why others cannot serve the model; some see that only when they write a token."""
    vlm = captioner.vlm
    # Which heads a method takes changes nothing in what its step costs.
    heads = {"heads": [[layer, 0] for layer in range(vlm.n_layers)]}
    able: dict[str, Method] = {}
    refused: dict[str, str] = {}
    for name in method_list(methods):
        kind = get_method(name)
        given = heads if "heads" in kind.declared() else {}
        try:
            method = kind.middle_for((vlm.name, vlm.family.name), vlm.n_layers, given)
            next(captioner.run([CaptionRequest(0, image, method, None, 1)]))
            able[name] = method
        except RequestError as error:
            if methods != ALL:
                raise RequestError(f"{name}: {error}") from None
            refused[name] = str(error)
    return able, refused


def _rows(work: Workload, trials: int) -> int:
    if work.lanes != "auto":
        return work.lanes
    if work.vlm.device.type == "cpu":
        return _ROWS_ON_A_CPU
    images = len(work.images)
    return plan_for(work.vlm, work.prompt_tokens, work.max_new_tokens, images * trials, images).rows
