"""What a few long captions cost among many short ones.

Prints a line of JSON for each run and one for the difference:
``python -m kvtune.bench.engine.long --model llava-1.5 --device cuda``.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from kvtune.bench.engine.subject import arguments, bench_method, noise_image, print_line, say_everything, subject
from kvtune.bench.engine.sweep import steady_slice
from kvtune.bench.engine.workload import Workload
from kvtune.captioning.captioner import Captioner
from kvtune.captioning.memory import MOST_ROWS
from kvtune.captioning.request import CaptionRequest
from kvtune.methods import Method

SHARE = 0.003
"""Captions of LLaVA-1.5 that run on to the limit, repeating themselves."""

_SHORT = (60 / 512, 160 / 512)
"""Length of the others, in parts of the limit."""

_TURNS = 6
"""Captions of a run, in turns of all rows: a caption of 512 tokens takes as long as 4.7 of 110."""

_EARLY = 1.3
"""Turns in which the long captions begin, so that none ends after the short ones. As many are then decoded at once as
in a run without end, of which they hold SHARE x 4.7 of the rows."""


def long_among_short(
    work: Workload,
    method: Method,
    trials: int,
    keep: Callable[[dict[str, Any]], None],
    make_image: Callable[[int], Image.Image] = noise_image,
    seed: int = 0,
) -> float:
    """Seconds a useful token with long captions over seconds without, less one, in percent.

    Parameters
    ----------
    work
        Of it the model, the limit and the lanes are used.
    trials
        Captions of each image.
    keep
        Called with each run, and with the difference.
    make_image
        Gives the image of a number when the engine asks for it.
    """
    # Libraries are loaded and kernels compiled at the width of the runs that count.
    few = 2 * (MOST_ROWS if work.lanes == "auto" else work.lanes)
    _run(work, _requests(method, trials, [4] * few, make_image))
    draw = np.random.default_rng(seed)
    low, high = (max(1, round(part * work.max_new_tokens)) for part in _SHORT)
    lengths = draw.integers(low, high, _TURNS * MOST_ROWS, endpoint=True)
    without = _run(work, _requests(method, trials, lengths.tolist(), make_image))
    keep({"what": "without"} | dataclasses.asdict(without))
    count = max(1, round(SHARE * without.captions))
    long = draw.choice(min(int(_EARLY * without.rows), without.captions), count, replace=False)
    lengths[long] = work.max_new_tokens
    among = _run(work, _requests(method, trials, lengths.tolist(), make_image))
    keep({"what": "with", "long": count} | dataclasses.asdict(among))
    extra = 100 * (without.tokens_per_second / among.tokens_per_second - 1)
    keep({"what": "extra", "percent": extra, "long": count, "of": among.captions, "tokens": work.max_new_tokens})
    return extra


@dataclasses.dataclass(frozen=True)
class Run:
    """One run; ``steady_captions_per_second`` is that of :func:`steady_slice`."""

    rows: int
    captions: int
    tokens: int
    steps: int
    seconds: float
    tokens_per_second: float
    steady: bool
    steady_captions_per_second: float


def _run(work: Workload, requests: Iterator[CaptionRequest]) -> Run:
    captioner = work.captioner(work.lanes)
    finished: list[float] = []
    tokens = 0
    start = time.perf_counter()
    with work.no_ends():
        for caption in captioner.run(_turns(captioner, requests)):
            tokens += len(caption.token_ids)
            finished.append(time.perf_counter() - start)
    assert captioner.plan is not None
    rows, seconds = captioner.plan.rows, finished[-1]
    part = steady_slice(finished, rows)
    return Run(rows, len(finished), tokens, captioner.steps, seconds, tokens / seconds, part.steady, part.rate)


def _turns(captioner: Captioner, requests: Iterator[CaptionRequest]) -> Iterator[CaptionRequest]:
    """As many of ``requests`` as :data:`_TURNS` turns of the grid: the first of them are there before it is planned."""
    rows = None if captioner.lanes == "auto" else captioner.lanes
    for number, request in enumerate(requests):
        if rows is None and captioner.plan is not None:
            rows = captioner.plan.rows
        if rows is not None and number >= _TURNS * rows:
            return
        yield request


def _requests(
    method: Method, trials: int, lengths: Sequence[int], make_image: Callable[[int], Image.Image]
) -> Iterator[CaptionRequest]:
    """One for each of ``lengths``, ``trials`` of an image."""
    for number, length in enumerate(lengths):
        if number % trials == 0:
            image = make_image(number // trials)
        yield CaptionRequest(number // trials, image, method, number, length)


def main() -> None:
    say_everything()
    given = arguments(__doc__).parse_args()
    work = Workload(subject(given), [noise_image(0)])
    long_among_short(work, bench_method(work.vlm), given.trials, print_line)


if __name__ == "__main__":
    main()
