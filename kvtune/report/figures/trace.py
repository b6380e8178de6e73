"""A picture of a traced caption, for a paper's column: entropies, smoothing factors, ranks of objects, over tokens."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from kvtune.chair.spans import MentionFinder
from kvtune.report.data.mentions import Mention, TracedObject, mentions
from kvtune.report.figures.drawing import COLUMN_WIDTH, PALETTE, drawn_text, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from kvtune.captioning.side_by_side import TracedPair
    from kvtune.captioning.trace import Trace

_COLOURS = {
    False: (PALETTE[1], PALETTE[4], PALETTE[3]),
    True: (PALETTE[0], PALETTE[2], PALETTE[5]),
    None: PALETTE[:6],
}
"""Colours of lines by whether the object is in the picture; a column has room for no more lines."""

_SAID = {True: "there", False: "not there", None: "there or not"}


def trace_figure(
    pair: TracedPair, truth: Collection[str] | None, objects: Sequence[TracedObject], finder: MentionFinder
) -> Figure:
    """Draw maps of row entropy and smoothing over layers and tokens, and the ranks of objects over tokens.

    Mentions are marked above the maps and on the lines. At most three objects that are in the picture are drawn and
    three that are not, these dashed, each by the word that the captions use first.
    """
    from matplotlib.figure import Figure

    traces = {"baseline": pair.baseline} | ({"preset": pair.treated} if pair.treated is not None else {})
    named = {name: mentions(trace, truth, finder) for name, trace in traces.items()}
    shown = _drawn(objects)
    entropies = np.concatenate([trace.entropy.ravel() for trace in traces.values()])
    limits = (np.nanmin(entropies), np.nanmax(entropies)) if np.isfinite(entropies).any() else (0.0, 1.0)
    maps = [(f"{name}: row entropy", name, trace.entropy, limits) for name, trace in traces.items()]
    if pair.treated is not None:
        maps.append(("preset: smoothing factor", "preset", pair.treated.smoothing, (0.0, 1.0)))
    heights = [1.0] * len(maps) + [1.3] * len(traces)
    with style():
        figure = Figure(figsize=(COLUMN_WIDTH, sum(heights) + 0.6 + 0.07 * len(shown)), layout="constrained")
        axes = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
        for panel, (title, name, values, limits) in zip(axes, maps, strict=False):
            _draw_map(figure, panel, values, limits, "viridis" if values is traces[name].entropy else "magma")
            _draw_mentions(panel, named[name], values.shape[1] - 0.5)
            panel.set_title(title, fontsize=7, loc="left", pad=7)
        for panel, (name, trace) in zip(axes[len(maps) :], traces.items(), strict=True):
            _draw_ranks(panel, trace, shown, named[name])
            panel.set_title(f"{name}: rank of the object's first token", fontsize=7, loc="left", pad=3)
        axes[-1].set_xlim(-0.5, max(len(trace.token_ids) for trace in traces.values()) - 0.5)
        axes[-1].set_xlabel("token of the caption")
        lines, labels = axes[-1].get_legend_handles_labels()
        for in_picture in dict.fromkeys(mention.in_picture for each in named.values() for mention in each):
            lines += [axes[0].plot([], [], **_mark(in_picture))[0]]
            labels += [f"named, {_SAID[in_picture]}"]
        if lines:
            figure.legend(lines, labels, loc="outside lower center", ncols=2, frameon=False, columnspacing=1.0)
        return figure


def _drawn(objects: Sequence[TracedObject]) -> list[tuple[TracedObject, str]]:
    """The objects to draw, one word a category, with their colours; those that are not in the picture first."""
    first: dict[str, TracedObject] = {}
    for each in objects:
        first.setdefault(each.category or each.word, each)
    return [
        drawn
        for in_picture, colours in _COLOURS.items()
        for drawn in zip((each for each in first.values() if each.in_picture is in_picture), colours, strict=False)
    ]


def _draw_map(figure: Figure, panel: Axes, values: np.ndarray, limits: tuple[float, float], colours: str) -> None:
    from matplotlib.ticker import MaxNLocator

    panel.grid(False)
    panel.set_facecolor("#EEEEEE")
    image = panel.imshow(
        values.T, aspect="auto", origin="lower", interpolation="nearest", cmap=colours, vmin=limits[0], vmax=limits[1]
    )
    bar = figure.colorbar(image, ax=panel, pad=0.02, aspect=10)
    bar.outline.set_linewidth(0.4)
    bar.ax.tick_params(labelsize=6)
    panel.set_ylabel("layer")
    panel.yaxis.set_major_locator(MaxNLocator(4, integer=True))


def _mark(in_picture: bool | None) -> dict[str, Any]:
    """How a mention is drawn, by whether the object is in the picture."""
    marker, colour = {True: ("v", "#0072B2"), False: ("X", "#D55E00"), None: ("v", "#666666")}[in_picture]
    return {"marker": marker, "color": colour, "linestyle": "", "markersize": 3.5, "markeredgewidth": 0}


def _draw_mentions(panel: Axes, found: Sequence[Mention], top: float) -> None:
    for mention in found:
        panel.plot(mention.position, top, **_mark(mention.in_picture), clip_on=False, zorder=5)


def _draw_ranks(panel: Axes, trace: Trace, shown: Sequence[tuple[TracedObject, str]], found: Sequence[Mention]) -> None:
    from matplotlib.ticker import NullLocator, StrMethodFormatter

    panel.set_yscale("log")
    panel.yaxis.set_major_formatter(StrMethodFormatter("{x:.0f}"))
    panel.yaxis.set_minor_locator(NullLocator())
    for each, colour in shown:
        ranks = trace.ranks[:, each.column]
        look: dict[str, Any] = {"color": colour, "linestyle": "--" if each.in_picture is False else "-"}
        word = drawn_text(each.word)
        label = word if each.in_picture is None else f"{word}, {_SAID[each.in_picture]}"
        panel.plot(ranks, **look, linewidth=0.8, label=label)
        places = [mention.position for mention in found if mention.category == each.category]
        panel.plot(places, ranks[places], "o", color=colour, markersize=3, zorder=4)
    panel.invert_yaxis()
    panel.set_ylabel("rank")
    panel.set_ylim(top=0.8)
