"""The files of a reproduced table: JSON, CSV and Markdown."""

from pathlib import Path

from kvtune.chair import METRICS, OBJECTIVES
from kvtune.files import write_text
from kvtune.json_files import write_json
from kvtune.report.cells import LENGTH, interval, rate
from kvtune.report.data.reproduction import reproduction_document, reproduction_frame
from kvtune.report.reproduction_facts import SECOND_HAND, images_of, label, reported_cell, sentences, title_of
from kvtune.report.study_files import write_frame
from kvtune.reproduce import ModelResult


def write_reproduction(folder: Path, found: ModelResult) -> list[Path]:
    """Write one model's table as TABLE.json, .csv and .md; return their paths.

    Raises
    ------
    KvtuneError
        If a file cannot be written.
    """
    stem = folder / found.table
    paths = [stem.with_suffix(".json"), *write_frame(stem, reproduction_frame(found)), stem.with_suffix(".md")]
    write_json(paths[0], reproduction_document([found]))
    write_text(paths[-1], reproduction_markdown(found))
    return paths


def reproduction_markdown(found: ModelResult) -> str:
    """Return the table in Markdown, 95 % intervals in brackets, with its sentences below."""
    lines = [f"**{title_of(found)} with {found.model}: {images_of(found)}**", ""]
    columns = ["", *(f"{METRICS[name].label}{part}" for name in OBJECTIVES for part in ("", ", reported"))]
    columns += [METRICS[name].label for name in LENGTH]
    lines += ["| " + " | ".join(columns) + " |", "|---" + "|---:" * (len(columns) - 1) + "|"]
    for setting in found.settings:
        cells = [label(found, setting)]
        for metric in OBJECTIVES:
            cells.append(f"{rate(setting.result.metrics[metric])} ({interval(setting.result.intervals[metric])})")
            cells.append(reported_cell(found, setting, metric).replace(SECOND_HAND, f"\\{SECOND_HAND}"))
        cells += [rate(setting.result.metrics[name]) for name in LENGTH]
        lines.append("| " + " | ".join(cells) + " |")
    listed = [sentence.replace(SECOND_HAND, f"\\{SECOND_HAND}") for sentence in sentences(found)]
    return "\n".join([*lines, "", *(f"- {sentence}" for sentence in listed), ""])
