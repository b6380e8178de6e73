"""The study as one HTML file that opens from disk, without a network."""

import base64
import hashlib
import html
import shlex
from collections.abc import Sequence
from importlib import resources
from string import Template
from typing import Any

import kvtune
from kvtune.analysis.selection import Choice
from kvtune.analysis.summary import StudySummary, TrialSummary
from kvtune.chair import METRICS
from kvtune.report import facts
from kvtune.report.data.document import overlay_document, study_document, trial_document
from kvtune.report.data.overlay import OverlayPoint
from kvtune.report.page.pack import PackedCaptions
from kvtune.report.roles import cut_line, front_line, marks, roles
from kvtune.text import json_text

_SCRIPTS = (
    "study.js",
    "scatter.js",
    "pointer.js",
    "point.js",
    "parameters.js",
    "table.js",
    "captions.js",
    "start.js",
)
"""In the order in which they run, as one."""


def html_page(
    summary: StudySummary,
    chosen: Choice,
    captions: PackedCaptions | None = None,
    overlays: Sequence[OverlayPoint] = (),
    *,
    study_argument: str | None = None,
) -> str:
    """Return the page: scatter, selected point with its export command, captions beside the baseline's, table.

    Everything that comes from the study reaches the page as data and is shown as text; a content security policy
    keeps the page from running or loading anything else.

    Parameters
    ----------
    chosen
        What ``kvtune export`` would take.
    captions
        Packed captions; the page says so where there are none.
    overlays
        Results of other methods.
    study_argument
        The study in the export command, as a shell reads it; its name where left out.
    """
    script, style = "\n".join(map(_file, _SCRIPTS)), _file("page.css")
    return Template(_file("page.html")).substitute(
        version=html.escape(kvtune.__version__),
        title=html.escape(f"{summary.study} · kvtune"),
        script_hash=_hash(script),
        style_hash=_hash(style),
        style=style,
        script=script,
        study=_json(_page_document(summary, chosen, captions, overlays, study_argument or shlex.quote(summary.study))),
        captions=captions.data if captions else "",
    )


def _page_document(
    summary: StudySummary,
    chosen: Choice,
    captions: PackedCaptions | None,
    overlays: Sequence[OverlayPoint],
    study_argument: str,
) -> dict[str, Any]:
    number = chosen.trial
    on_picture = {mark.trial.number for mark in marks(summary, number)}

    def point(trial: TrialSummary) -> dict[str, Any]:
        document = trial_document(trial)
        return document | {"roles": roles(summary, trial, number), "drawn": trial.number in on_picture}

    return study_document(summary, chosen, overlays) | {
        "facts": " · ".join([facts.subject(summary), facts.progress(summary), facts.volume(summary)]),
        "baseline": point(summary.baseline) if summary.baseline else None,
        "trials": [point(trial) for trial in summary.trials],
        "overlays": [
            overlay_document(overlay)
            | {
                "overlay": index,
                "kind": overlay.kind,
                "roles": ["overlay"],
                "drawn": True,
                "params": {},
                "intervals": {},
            }
            for index, overlay in enumerate(overlays)
        ],
        "metrics": [
            {"name": name, "label": metric.label, "unit": metric.unit, "objective": metric.objective}
            for name, metric in METRICS.items()
        ],
        "notes": _notes(summary, chosen, overlays),
        "staircase": front_line(summary),
        "cut_staircase": cut_line(summary),
        "parameters": summary.varying_parameters,
        "shared_parameters": list(summary.shared_parameters),
        "export_command": f"kvtune export {study_argument} --select trial:{{number}} --out preset.json",
        "captions_note": captions.note if captions else "",
    }


def _notes(summary: StudySummary, chosen: Choice, overlays: Sequence[OverlayPoint]) -> list[str]:
    notes = [
        facts.luck(summary),
        facts.racing(summary),
        facts.floors(summary),
        facts.at_limit(summary, chosen.trial),
    ]
    notes += facts.caption_notes(summary)
    notes += [f"{point.label}: {note.text}" for point in overlays for note in point.notes]
    return [note for note in notes if note]


def _json(document: Any) -> str:
    """JSON that no HTML parser can take for the end of a script."""
    text = json_text(document, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _file(name: str) -> str:
    return resources.files("kvtune.report.page").joinpath(name).read_text(encoding="utf-8")
