"""A decode step, taken apart: what a method adds, how long graphs take to capture, memory, and the dearest kernels; and
a batch of prompts.

Prints a line of JSON for each: ``python -m kvtune.bench.engine.profile --model llava-1.5 --device cuda``.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Self

import torch
from torch import Tensor
from torch.autograd import DeviceType

from kvtune.bench.engine.device import seconds_of, wait_for
from kvtune.bench.engine.operations import decoder_weights
from kvtune.bench.engine.peak import quiet_profiler
from kvtune.bench.engine.spent import around_steps, capture_seconds
from kvtune.bench.engine.steps import decode_together, time_steps
from kvtune.bench.engine.subject import arguments, bench_method, noise_image, print_line, say_everything, subject
from kvtune.bench.engine.workload import Workload
from kvtune.captioning import CaptionRequest
from kvtune.captioning.decoding import on_device
from kvtune.captioning.fused import FusedLayers
from kvtune.captioning.memory import prompts_together
from kvtune.captioning.planning import Plan, plan_for
from kvtune.captioning.prefill import prefill
from kvtune.methods import Method

_IMAGES = 128
"""Images for which the grid is planned: with 16 trials each, twice as many captions as a grid has rows at most."""

_STEPS = 4
"""Steps whose kernels are looked at, the first in the later half of the captions: graphs are captured by then."""

_KERNELS = 15

_TOGETHER = 5
"""Prompts that are run together where 16 trials are in flight, as simulated."""


def profile(work: Workload, method: Method, plan: Plan, keep: Callable[[dict[str, Any]], None]) -> None:
    """Measure the steps of a grid like ``plan``; each result goes to ``keep`` when it is there."""
    rows, device = plan.rows, work.vlm.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with capture_seconds() as captured:
        *_, of_methods = time_steps(work, {method.name: method}, rows, plan.lanes, pairs=2)
    times = of_methods[method.name]
    keep({"what": "steps"} | times.to_dict())
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(device)
        keep({"what": "graphs", "captured": len(captured), "seconds": captured})
        keep({"what": "memory", "plan": plan.to_dict(), "peak": peak, "predicted_over_measured": plan.peak / peak})
    kernels = StepKernels(device, range(times.steps, min(times.steps + _STEPS, 2 * times.steps - 1)))
    with kernels, around_steps(kernels.step):
        decode_together(work, work.captioner(rows), method, rows, plan.lanes)
    keep({"what": "kernels", "steps": len(kernels.steps), "kernels": kernels.dearest(_KERNELS)})
    keep({"what": "prompts"} | time_prompts(work))


@torch.inference_mode()
def time_prompts(work: Workload) -> dict[str, Any]:
    """A batch of prompts through the decoder, the quickest of three: milliseconds, those after which the host has
    launched all of it, and TFLOP/s of the products with weights alone."""
    vlm, device = work.vlm, work.vlm.device
    count = min(_TOGETHER, prompts_together(work.prompt_tokens))
    prompts = work.captioner(1).prompts_of([CaptionRequest(0, work.images[0])]) * count
    launched: list[float] = []

    def run() -> None:
        begun = time.perf_counter()
        for _ in prefill(vlm, prompts):
            pass
        launched.append(time.perf_counter() - begun)

    with on_device(device), FusedLayers(vlm.decoder, device).applied():
        seconds_of(run, device)
        seconds = [seconds_of(run, device) for _ in range(3)]
    best = min(range(3), key=seconds.__getitem__)
    tokens = sum(prompt.length for prompt in prompts)
    return {
        "prompts": count,
        "tokens": tokens,
        "ms": 1e3 * seconds[best],
        "host_ms": 1e3 * launched[1 + best],
        "tflops": 2e-12 * decoder_weights(vlm)[0] * tokens / seconds[best],
    }


class StepKernels:
    """Looks at some decode steps, by their numbers, with PyTorch's profiler, while it is entered.

    A profiler that is never ended notes every operation until memory is out, so the end of the block ends it.
    """

    def __init__(self, device: torch.device, steps: range) -> None:
        self.steps = steps
        self._device = device
        self._made = 0
        self._looking = ExitStack()
        activity = torch.profiler.ProfilerActivity
        on_gpu = device.type == "cuda"
        self._profile = quiet_profiler([activity.CPU, *([activity.CUDA] if on_gpu else [])])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._looking.close()

    def step(self, step: Callable[[], Tensor], rows: int) -> Tensor:
        if self.steps and self._made == self.steps.start:
            wait_for(self._device)
            self._looking.enter_context(self._profile)
        tokens = step()
        self._made += 1
        if self.steps and self._made == self.steps.stop:
            wait_for(self._device)
            self._looking.close()
        return tokens

    def dearest(self, count: int) -> list[dict[str, Any]]:
        """Kernels (on a CPU: operators) that took most of the time, with calls and milliseconds a step."""
        if self._made < self.steps.stop:
            return []
        kind = DeviceType.CUDA if self._device.type == "cuda" else DeviceType.CPU
        spent = [
            (event.self_device_time_total if kind == DeviceType.CUDA else event.self_cpu_time_total, event)
            for event in self._profile.key_averages()
            if event.device_type == kind
        ]
        whole = sum(time for time, _ in spent) or 1
        return [
            {
                "name": event.key,
                "calls": event.count / len(self.steps),
                "ms": time / 1e3 / len(self.steps),
                "share": time / whole,
            }
            for time, event in sorted(spent, key=lambda one: -one[0])[:count]
        ]


def main() -> None:
    say_everything()
    parser = arguments(__doc__)
    given = parser.parse_args()
    count = _IMAGES if given.lanes is None else -(-given.lanes // given.trials)
    images = [noise_image(number) for number in range(count)]
    work = Workload(subject(given), images)
    plan = plan_for(work.vlm, work.prompt_tokens, given.max_new_tokens, count * given.trials, count, work.lanes)
    profile(work, bench_method(work.vlm), plan, print_line)


if __name__ == "__main__":
    main()
