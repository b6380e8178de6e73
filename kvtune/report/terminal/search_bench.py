"""``kvtune bench search`` as tables."""

from typing import Any

from rich.table import Table

from kvtune.report.terminal.tables import plain_table


def search_table(result: dict[str, Any]) -> Table:
    """One line an arm: thousand captions, median (quartiles), until each share of the hypervolume is reached."""
    recorded = result["table"]
    table = plain_table(
        f"{recorded['settings']:,} settings of the {recorded['model']} on {recorded['images']} images, "
        f"{result['seeds']} seeds, budget {result['budget']:,} captions"
    )
    table.add_column("arm", no_wrap=True)
    for share in result["arms"][0]["captions"]:
        table.add_column(f"to {share}", justify="right")
        table.add_column("n", justify="right")
    (trials,) = result["arms"][0]["share_after"]
    table.add_column(f"% after {trials}", justify="right")
    table.add_column("raced", justify="right")
    table.add_column("lost", justify="right")
    for arm in result["arms"]:
        cells = [arm["arm"]]
        for share, captions in arm["captions"].items():
            median, low, high = (
                _thousands(value, result["budget"]) for value in (captions["median"], *captions["quartiles"])
            )
            cells += [f"{median} ({low}-{high})", f"{arm['reached'][share]}"]
        low, high = arm["share_after"][trials]["quartiles"]
        cells.append(f"{100 * arm['share_after'][trials]['median']:.0f} ({100 * low:.0f}-{100 * high:.0f})")
        raced = f"{100 * arm['raced']:.0f} %" if arm["race"] else ""
        lost = f"{arm['front_points_lost']} of {arm['front_points_sampled']}" if arm["race"] else ""
        table.add_row(*cells, raced, lost)
    return table


def _thousands(captions: float | None, budget: int) -> str:
    if captions is None:
        return f">{budget / 1000:,.{0 if budget >= 10_000 else 1}f}"
    return f"{captions / 1000:,.{0 if captions >= 10_000 else 1}f}"


def search_lines(result: dict[str, Any]) -> list[str]:
    """What the table's columns mean, and the default beside what it is measured against."""
    point = result["table"]["reference_point"]
    (trials,) = result["arms"][0]["share_after"]
    lines = [
        "to a share: thousand captions, median over seeds (quartiles), until that share of the grid's hypervolume from "
        f"CHAIR_S {point['chair_s']:.1f}, F1 {point['f1']:.1f}; > where it is not reached within the budget",
        f"% after {trials}: of that hypervolume, what {trials} trials have found, median over seeds (quartiles)",
        "n: searches that reached it; raced: share of trials that were stopped early",
        "lost: of the sampled points that no other sampled one dominates on all images, those raced out",
    ]
    reached = {arm["arm"]: arm["reached"] for arm in result["arms"]}
    share = f"{result['share']:.0%}"
    for yardstick, ratio in result["default_over"].items():
        if ratio["ratio"] is None:
            ours, theirs = (reached[name][share] for name in (result["default"], yardstick))
            lines.append(
                f"{result['default']} got to {share} in {ours} of {result['seeds']} searches, {yardstick} in {theirs}: "
                "no ratio is given where one did not"
            )
            continue
        low, high = ratio["interval"]
        lines.append(
            f"{result['default']} spends {100 * ratio['ratio']:.0f} % ({100 * low:.0f} to {100 * high:.0f} %) of the "
            f"captions of {yardstick} until {share}"
        )
    return lines


def coverage_table(result: dict[str, Any]) -> Table:
    """One line a metric: how often the intervals of the chosen setting hold the truth, held out and on tune images."""
    pool = result["pool"]
    table = plain_table(
        f"{result['studies']:,} simulated studies of {result['images']} tune and {result['images']} held-out images, "
        f"truth: {pool['settings']} settings on {pool['images']:,} images"
    )
    table.add_column("metric")
    for column in ("held out", "its difference", "tune", "its difference", "tune error"):
        table.add_column(column, justify="right")
    for metric, found in result["coverage"].items():
        covered = [found[images][key] for images in ("held_out", "tune") for key in ("covered", "difference_covered")]
        table.add_row(metric, *(f"{share:.1f} %" for share in covered), f"{found['tune']['mean_error']:+.2f}")
    return table


def coverage_lines(result: dict[str, Any]) -> list[str]:
    """What the table's columns mean."""
    lines = [
        "studies whose 95 % interval of the chosen setting holds its rate in the pool, on held-out and on tune images, "
        "and the same of its difference to the baseline; tune error: mean of estimate minus truth",
    ]
    if result["none"]:
        lines.append(f"{result['none']} studies found no setting by the rule {result['rule']} and are left out")
    return lines
