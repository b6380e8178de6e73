"""``kvtune bench cluster``: what one driver can take from many workers."""

from dataclasses import asdict
from typing import Annotated

from kvtune.cli import options as opt
from kvtune.cli.common import out, print_json
from kvtune.cli.options import value
from kvtune.cli.progress import progress
from kvtune.errors import RequestError, check_count
from kvtune.study import search_defaults
from kvtune.text import quoted


def cluster(
    workers: Annotated[str, value("N,N,...", "Numbers of pretended workers to measure.")] = "8,64,512",
    trials: Annotated[int, value("N", "Trials of each search.", min=1)] = 16,
    images: Annotated[int, value("N", "Images of each trial.", min=1)] = 500,
    parallel_trials: Annotated[
        int, value("N", "Trials in a round, captioned together.", min=1)
    ] = search_defaults.PARALLEL_TRIALS,
    words: Annotated[int, value("N", "Words a caption has at least.", min=1)] = 90,
    rate: Annotated[float, value("N", "Captions a second that all workers make together.", min=1)] = 20_000,
    seed: opt.Seed = 0,
    json: opt.Json = False,
) -> None:
    """Measure how many captions a second one search deals out, writes, scores and races.

    Workers only pretend: they need no model and no Ray. The search is whole, racing included, in a temporary folder.

    Example: kvtune bench cluster --workers 8,512 --trials 24
    """
    from kvtune.bench.cluster.run import bench_driver

    counts = [int(each) if each.strip().isdecimal() and len(each) < 10 else 0 for each in workers.split(",")]
    if min(counts) < 1:
        raise RequestError(f"--workers takes whole numbers above 0 with commas between, not {quoted(workers)}")
    check_count("--workers", max(counts))
    results = []
    for count in counts:
        with progress(f"captions of {count} workers") as on_progress:
            results.append(bench_driver(count, trials, images, words, rate, parallel_trials, seed, on_progress))
    if json:
        print_json([asdict(result) for result in results])
        return
    from kvtune.report.terminal.cluster_bench import cluster_table

    out().print(cluster_table(results))
