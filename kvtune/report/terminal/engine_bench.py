"""``kvtune bench engine`` as a table and a picture."""

import statistics
from pathlib import Path
from typing import Any

from rich.table import Table

from kvtune.report.figures.drawing import PALETTE, column_figure, save_figure, style
from kvtune.report.terminal.tables import plain_table
from kvtune.text import number_of

_RATIOS = {
    "attached_over_plain_per_token": "KVSmooth attached over plain, per token (a / a0)",
    "smoothing_over_none_per_step": "KVSmooth over none in the engine, per step",
}


def engine_table(result: dict[str, Any]) -> Table:
    """One line an arm."""
    title = f"{result['model']}, {result['dtype']}, {result['images']} images, {device_name(result)}"
    table = plain_table(title)
    table.add_column("arm")
    for column in (
        "at\nonce",
        "captions\na second",
        "tokens\na second",
        "tokens\neach",
        "ms a\nstep",
        "memory\nGiB",
        "of\nmatmul,\ndecode",
        "of\nmatmul,\nall",
        "of\ncopy",
    ):
        table.add_column(column, justify="right")
    for arm in result["arms"]:
        table.add_row(
            arm["name"],
            f"{arm['batch']:,}",
            f"{arm['captions_per_second']:,.1f}",
            f"{arm['tokens_per_second']:,.0f}",
            f"{arm['tokens'] / arm['captions']:.0f}",
            f"{arm['ms_per_step']:.2f}",
            "" if arm["peak_bytes"] is None else f"{arm['peak_bytes'] / 2**30:.1f}",
            f"{100 * arm['of_matmul']:.0f} %",
            f"{100 * arm['of_matmul_all']:.0f} %",
            f"{100 * arm['of_copy']:.0f} %",
        )
    return table


def engine_lines(result: dict[str, Any]) -> list[str]:
    """What the arms are; ratios, sweep, memory and noise, as far as they are measured, and what failed: a line each."""
    lines = [_arm_words(arm) for arm in result["arms"]]
    if lines:
        lines.append(
            "of matmul: share of the speed of a large matrix product here, over all time; decode counts the work of "
            "decode steps alone, all that of prompts and vision tower too"
        )
    for name, value in result["ratios"].items():
        what = _RATIOS.get(name) or _ratio_words(name)
        lines.append(f"{what}: {value:.2f}{_range_words(result['ratios_range'].get(name), value)}")
    if steps := result["steps"]:
        lines.append(
            f"  at {steps['rows']:,} rows, {statistics.median(steps['without_ms']):.2f} ms a step without, "
            f"{statistics.median(steps['with_ms']):.2f} with, median of {steps['pairs']} pairs"
        )
    if spent := result["spent"]:
        lines += _spent_words(result["arms"][-1]["name"], spent)
    if sweep := result["sweep"]:
        lines.append(
            f"extrapolated, not measured: {sweep['trials']} trials on {sweep['images']} images in "
            f"{sweep['seconds'] / 60:.1f} minutes ({sweep['arithmetic']})"
        )
        if not sweep["steady"]:
            lines.append("  from a whole run, too short to have a steady slice; more --images give one")
    if memory := result["memory"]:
        lines.append(
            f"memory: {memory['plan']['peak'] / 2**20:,.0f} MiB predicted, {memory['measured_peak'] / 2**20:,.0f} MiB "
            f"measured, ratio {memory['predicted_over_measured']:.2f}"
        )
    if noise := result["noise"]:
        change = noise["chair_s_change"]
        lines.append(
            f"one lane against the full grid: {noise['changed']} of {noise['captions']} captions change, CHAIR_S "
            + ("n/a, nobody knows what the images show" if change is None else f"by {change:+.1f} points")
        )
    lines += [f"{what} was not measured: {why}" for what, why in result["failed"].items()]
    if not result["complete"]:
        lines.append("stopped early: what is missing was not measured")
    return lines


def methods_table(result: dict[str, Any]) -> Table:
    """What each method adds to a decode step, a line each."""
    found = result["methods"]
    at = f", {found[0]['rows']:,} captions a step" if found else ""
    table = plain_table(f"{result['model']}, {result['dtype']}, {device_name(result)}{at}")
    table.add_column("method")
    for column in ("ms", "over\nnone", "least\nto most", "processor\nms", "over\nnone", "least\nto most"):
        table.add_column(column, justify="right")
    if found:
        plain = [f"{statistics.median(found[0][f'without_{kind}ms']):.2f}" for kind in ("", "processor_")]
        table.add_row("none", plain[0], "", "", plain[1], "", "")
    for one in found:
        table.add_row(
            one["method"],
            *(
                cell
                for kind in ("", "processor_")
                for cell in (
                    f"{statistics.median(one[f'with_{kind}ms']):.2f}",
                    f"{one[f'{kind}ratio']:.2f}",
                    "{:.2f}-{:.2f}".format(*one[f"{kind}ratio_range"]),
                )
            ),
        )
    return table


def methods_lines(result: dict[str, Any]) -> list[str]:
    """What the numbers are, and what was left out."""
    lines = []
    if found := result["methods"]:
        lines.append(
            f"medians of {found[0]['pairs']} runs of {found[0]['steps']} steps each, a ratio that of one run with the "
            "method and one without; processor: the least time of this process for a step of a run"
        )
    lines += [f"{name} cannot serve the model: {why}" for name, why in result["refused"].items()]
    if not result["complete"]:
        lines.append("stopped early: what is missing was not measured")
    return lines


def _spent_words(arm: str, spent: dict[str, Any]) -> list[str]:
    """Where the time of an arm went."""
    widest, *narrower = spent["steps"]
    prompts, captures = spent["prompts"], spent["captures"]
    known = [widest["seconds"], sum(steps["seconds"] for steps in narrower), prompts["seconds"]]
    each = 1e3 * widest["seconds"] / widest["count"]
    lines = [
        f"{arm}, {spent['seconds']:.1f} s: {widest['count']:,} steps {widest['width']:,} wide {known[0]:.1f} s "
        f"({each:.1f} ms each), {sum(steps['count'] for steps in narrower):,} narrower {known[1]:.1f} s, "
        f"{prompts['count']:,} prompts {known[2]:.1f} s, neither {spent['seconds'] - sum(known):.1f} s"
    ]
    if captures["count"]:
        lines.append(
            f"  of these, the host waited {spent['host_waited']:.1f} s for tokens, and captured "
            f"{number_of(captures['count'], 'graph')} in {captures['seconds']:.1f} s"
        )
    return lines


def _arm_words(arm: dict[str, Any]) -> str:
    words = f"{arm['name']:4}{arm['what']}, {arm['captions']} captions"
    if arm["asked_batch"] is not None:
        words += f"; batch {arm['asked_batch']} does not fit into the device's memory"
    return words


def _range_words(ends: list[float] | None, value: float) -> str:
    """The range of a ratio over repeats, where there were several."""
    return "" if ends is None or ends == [value, value] else f" ({ends[0]:.2f} to {ends[1]:.2f})"


def _ratio_words(name: str) -> str:
    """``e16_over_a0_tokens`` in words."""
    arms, tokens = name.removesuffix("_tokens"), name.endswith("_tokens")
    return f"{'tokens' if tokens else 'captions'}/s, {arms.replace('_', ' ')}"


def engine_figure(result: dict[str, Any], path: Path) -> None:
    """Captions a second of each arm, on a logarithmic axis."""
    arms = result["arms"]
    with style():
        figure, axes = column_figure()
        speeds = [arm["captions_per_second"] for arm in arms]
        colours = [PALETTE[1] if arm["name"][0] in "ab" else PALETTE[0] for arm in arms]
        axes.barh(range(len(arms)), speeds, color=colours, height=0.7)
        axes.set_yticks(range(len(arms)), [arm["what"].replace(", ", ",\n", 1) for arm in arms])
        axes.invert_yaxis()
        axes.set_xscale("log")
        axes.set_xlabel("captions a second")
        axes.set_xlim(min(speeds) / 2, max(speeds) * 4)
        for place, speed in enumerate(speeds):
            axes.annotate(f"{speed:,.1f}", (speed, place), xytext=(3, 0), textcoords="offset points", va="center")
        figure.suptitle(f"{result['model']}, {result['dtype']}, {device_name(result)}", fontsize=8)
        save_figure(figure, path, "speed of the engine")


def device_name(result: dict[str, Any]) -> str:
    """The device, with its threads where it is a processor."""
    device = result["device"]
    return f"CPU, {number_of(device['threads'], 'thread')}" if device["name"] == "CPU" else device["name"]
