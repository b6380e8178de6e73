"""``kvtune bench search`` as tables."""

from typing import Any

from rich.table import Table


def search_table(result: dict[str, Any]) -> Table:
    """One line an arm: median captions (quartiles) until each share of the hypervolume is reached."""
    recorded = result["table"]
    table = Table(
        title=f"{recorded['settings']:,} settings of the {recorded['model']} on {recorded['images']} images, "
        f"{result['seeds']} seeds, budget {result['budget']:,} captions",
        title_justify="left",
    )
    table.add_column("arm")
    for share in result["arms"][0]["captions"]:
        table.add_column(f"captions to {share}", justify="right")
        table.add_column("reached", justify="right")
    table.add_column("raced", justify="right")
    table.add_column("front lost", justify="right")
    for arm in result["arms"]:
        cells = [arm["arm"]]
        for share, captions in arm["captions"].items():
            low, high = captions["quartiles"]
            cells += [f"{captions['median']:,.0f} ({low:,.0f} - {high:,.0f})", f"{arm['reached'][share]}"]
        sampled, lost = arm["front_points_sampled"], arm["front_points_lost"]
        raced = f"{100 * arm['raced']:.0f} %" if arm["race"] else ""
        table.add_row(*cells, raced, f"{lost} of {sampled}" if arm["race"] else "")
    return table


def search_lines(result: dict[str, Any]) -> list[str]:
    """What the table's columns mean, and the default beside what it is measured against."""
    point = result["table"]["reference_point"]
    lines = [
        "captions: median over seeds (quartiles) until that share of the grid's hypervolume from CHAIR_S "
        f"{point['chair_s']:.1f}, F1 {point['f1']:.1f}; {result['not_reached']:,} where the budget does not reach it",
        "front lost: of the sampled settings that no other sampled one dominates on all images, those raced out",
    ]
    ratio = result["default_over_yardstick"]
    if ratio is not None:
        low, high = ratio["interval"]
        lines.append(
            f"{result['default']} spends {100 * ratio['ratio']:.0f} % ({100 * low:.0f} to {100 * high:.0f} %) of the "
            f"captions of {result['yardstick']} until {ratio['share']:.0%}"
        )
    return lines
