"""``kvtune bench search``: what a search costs and how far its numbers hold, replayed on recorded outcomes."""

from pathlib import Path
from typing import Annotated

from kvtune.cli import options as opt
from kvtune.cli.common import out, print_json
from kvtune.cli.options import flag, value
from kvtune.cli.progress import progress


def search(
    table: Annotated[Path | None, value("FILE", "Recorded outcomes; default: those that ship.")] = None,
    arm: Annotated[
        list[str] | None,
        value("NAME", "An arm such as tpe-16-race; repeat for more. Default: all in rounds of 1 and 8 but gp's."),
    ] = None,
    seeds: Annotated[int, value("N", "Searches of each arm.", min=1, max=10_000)] = 20,
    budget: Annotated[int, value("N", "Captions of a search, in trials on all images.", min=1, max=10_000)] = 200,
    jobs: Annotated[int | None, value("N", "Processes; default: one a processor.", min=1, max=1_000)] = None,
    coverage: Annotated[
        bool, flag("Simulate studies instead: how often their intervals hold the truth.", "--coverage")
    ] = False,
    studies: Annotated[int, value("N", "Studies of --coverage.", min=1, max=1_000_000)] = 1000,
    images: Annotated[int, value("N", "Tune images of each, and held-out images.", min=1, max=100_000)] = 500,
    json: opt.Json = False,
) -> None:
    """Compare samplers by the captions they spend until they have found a recorded grid's front.

    Outcomes of a grid of 540 settings of the demo are recorded, and searches replayed on them. Each arm is a
    sampler, trials in a round and, with -race, racing: random, optuna-tpe (Optuna's own settings), tpe, nsga2 or gp
    (slow) as kvtune sets them.

    Example: kvtune bench search --seeds 5 --arm tpe-8-race --arm optuna-tpe-8
    """
    from kvtune.report.terminal.search_bench import coverage_lines, coverage_table, search_lines, search_table

    if coverage:
        from kvtune.bench.search.coverage import simulate

        with progress("studies") as on_progress:
            result = simulate(table, studies, images, on_progress=on_progress)
        shown, lines = coverage_table(result), coverage_lines(result)
    else:
        from kvtune.bench.search.run import compare

        with progress("searches") as on_progress:
            result = compare(table, arm or (), seeds, budget, jobs, on_progress)
        shown, lines = search_table(result), search_lines(result)
    if json:
        print_json(result)
        return
    out().print(shown)
    out().say(*lines)
