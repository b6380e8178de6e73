"""``kvtune bench score``: captions a second."""

from dataclasses import asdict
from typing import Annotated

from kvtune.cli import options as opt
from kvtune.cli.common import out, print_json
from kvtune.cli.options import value


def score(
    captions: Annotated[int, value("N", "Different captions to score.", min=1)] = 20_000,
    words: Annotated[int, value("N", "Words a caption has at least.", min=1)] = 90,
    seed: opt.Seed = 0,
    json: opt.Json = False,
) -> None:
    """Measure the scorer: made-up captions a second on one core, each different, each read once.

    Example: kvtune bench score --captions 50000
    """
    from kvtune.bench.score import bench_score

    result = bench_score(captions, words, seed)
    if json:
        print_json(asdict(result))
        return
    out().say(
        f"{result.captions_per_second:,.0f} captions a second of one core: {result.captions} different captions of "
        f"{result.words:.0f} words, {result.cpu_seconds:.2f} s of processor time, {result.seconds:.2f} s by the clock"
    )
