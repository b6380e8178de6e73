"""A reproduced table of the paper in sentences, the same in the terminal and in its file."""

import math

from kvtune.analysis.claims import claim
from kvtune.chair import METRICS, OBJECTIVES
from kvtune.methods import get_method
from kvtune.report.cells import rate
from kvtune.report.data.reproduction import is_within, reported_of
from kvtune.reproduce import ModelResult, SettingResult
from kvtune.reproduce.paper_settings import LAMBDAS, RIVALS, TABLES

SECOND_HAND = "*"
"""Marks numbers that were read in a summary of the paper, or in a user's report."""

_RIVALS = {"pai": "PAI", "sparc": "SPARC", "middle_layers": "MiddleLayer"}


def title_of(found: ModelResult) -> str:
    """Which table it is."""
    return f"KVSmooth, {found.table[:5]} {found.table[5:]}"


def images_of(found: ModelResult) -> str:
    """Over which images it is."""
    count, name = found.subset.images, found.subset.name
    return f"{count} images ({name})" if found.whole else f"the first {count} images of {name}"


def label(found: ModelResult, setting: SettingResult) -> str:
    """A row's name in tables."""
    return {
        "opera": "OPERA's question",
        "baseline": "greedy",
        "constant": f"constant {found.constant.chosen}",
        "adaptive": "KVSmooth",
        "keys": "keys alone",
        "attention_output": "attention output",
        **_RIVALS,
    }[setting.name]


def reported_cell(found: ModelResult, setting: SettingResult, metric: str) -> str:
    """A reported rate as it stands in a table, marked where it is not from the paper itself."""
    theirs = reported_of(found, setting)
    if theirs is None or metric not in theirs.scores:
        return ""
    return rate(theirs.scores[metric]) + ("" if theirs.first_hand else SECOND_HAND)


def sentences(found: ModelResult) -> list[str]:
    """What the table says, where its numbers are from, and what they can not say."""
    return [
        "Under our numbers: 95 % intervals; difference: ours minus reported.",
        _constant(found),
        *(["Keys alone and attention output have KVSmooth's own parameters."] if found.setting("keys") else []),
        *_rivals(found),
        *_anchor(found),
        *(
            f"{_capital(label(found, setting))} against greedy decoding: "
            + "; ".join(claim(metric, setting.result.differences[metric]) for metric in OBJECTIVES)
            for setting in found.settings
            if setting.result.differences
        ),
        *_sources(found),
    ]


def _constant(found: ModelResult) -> str:
    sweep = found.constant
    tried = "; ".join(f"{point.factor}: {rate(point.metrics.f1)}" for point in sweep.points)
    return (
        f"Constant lambda: {sweep.chosen} has the highest F1 of {LAMBDAS[0]} to {LAMBDAS[-1]} on "
        f"{sweep.subset.images} other images ({sweep.subset.name}): {tried}."
    )


def _rivals(found: ModelResult) -> list[str]:
    """Where the settings of other methods are published, and for which methods none is known for this model."""
    told, unknown = [], []
    for name in (name for name in TABLES[found.table] if name in RIVALS):
        published = get_method(name).published_for(found.model, found.layers)
        setting = found.setting(name)
        if published is None or setting is None:
            unknown.append(_RIVALS[name])
        else:
            values = ", ".join(f"{key} {value}" for key, value in setting.params.items())
            told.append(f"{_RIVALS[name]}: {values} ({published.source}).")
    if unknown:
        told.append(f"{', '.join(unknown)}: no row, because no setting of theirs is known for {found.model}.")
    return told


def _anchor(found: ModelResult) -> list[str]:
    """Whether OPERA's published captions were hit, where they are of the same images."""
    setting = found.setting("opera")
    theirs = reported_of(found, setting) if setting is not None else None
    if setting is None or theirs is None:
        return []
    scores = " and ".join(f"{METRICS[metric].label} {rate(theirs.scores[metric])}" for metric in OBJECTIVES)
    if not theirs.same_images:
        return [f"No check: {theirs.source}, have {scores}."]
    missed = [METRICS[metric].label for metric in OBJECTIVES if not is_within(setting, theirs, metric)]
    text = f"Check: OPERA's own greedy captions of all of {found.subset.name} have {scores}; "
    if missed:
        return [
            f"{text}{' and '.join(missed)} outside our interval: look at weights, dtype and preprocessing before you "
            "trust the other rows."
        ]
    return [f"{text}both within our intervals."]


def _sources(found: ModelResult) -> list[str]:
    if not found.paper_model:
        adaptive = found.setting("adaptive")
        assert adaptive is not None
        layers = f"layers {adaptive.params['start_layer']} to {adaptive.params['end_layer'] - 1} of {found.layers}"
        return [
            f"Nothing is reported for this model. KVSmooth's parameters are those of its family's preset, {layers}."
        ]
    baseline = found.setting("baseline")
    assert baseline is not None
    chance = {}
    for metric in OBJECTIVES:
        low, high = baseline.result.intervals[metric]
        chance[METRICS[metric].label] = math.sqrt(2) * (high - low) / 2
    spread = " and ".join(f"{value:.1f} points of {name}" for name, value in chance.items())
    told = [
        "The paper's 500 images are others, and their ids are not published: two sets of as many images as here differ "
        f"by chance by up to {spread} (95 %)."
    ]
    rows = {setting.name: reported_of(found, setting) for setting in found.settings}
    second_hand = {name: row for name, row in rows.items() if row is not None and not row.first_hand}
    of_rivals = {name: row for name, row in second_hand.items() if name in RIVALS}
    of_paper = [row for name, row in second_hand.items() if name not in RIVALS]
    told += [f"{SECOND_HAND} From {row.seen}." for row in of_paper[:1]]
    told += [f"{SECOND_HAND} {_RIVALS[name]}: {row.source}, from {row.seen}." for name, row in of_rivals.items()]
    if found.model != found.family:
        told.append(
            f"Reported numbers are those of {found.family}: they compare only if {found.model} has the same weights."
        )
    return told


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
