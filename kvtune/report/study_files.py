"""The files that ``kvtune pareto`` writes."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kvtune.analysis.selection import Choice
from kvtune.analysis.summary import StudySummary
from kvtune.errors import RequestError
from kvtune.files import write_bytes, write_text
from kvtune.report.data.frames import cut_baseline_frame, trials_frame
from kvtune.report.data.overlay import OverlayPoint
from kvtune.report.figures.drawing import save_pictures
from kvtune.report.figures.front import front_figure
from kvtune.report.figures.held_out import held_out_figure
from kvtune.report.figures.hypervolume import hypervolume_figure
from kvtune.report.figures.precision_recall import precision_recall_figure
from kvtune.report.page.build import html_page
from kvtune.report.page.pack import Progress
from kvtune.report.page.study_captions import packed_captions
from kvtune.study.study_folder import StudyFolder

if TYPE_CHECKING:
    import pandas as pd


def write_pictures(
    out: Path, summary: StudySummary, chosen: int | None, overlays: Sequence[OverlayPoint] = ()
) -> list[Path]:
    """Write the front, precision over recall and, where there is what they show, the hypervolume over trials and the
    held-out results, each as PNG and SVG; return the paths."""
    pictures = {
        "front": front_figure(summary, chosen, overlays),
        "precision-recall": precision_recall_figure(summary, chosen),
    }
    if summary.reference_point is not None:
        pictures["hypervolume"] = hypervolume_figure(summary)
    if summary.validation is not None:
        pictures["held-out"] = held_out_figure(summary.validation, chosen)
    return [
        path
        for name, figure in pictures.items()
        for path in save_pictures(figure, out / name, f"{summary.study}: {name}")
    ]


def write_trials(out: Path, summary: StudySummary, chosen: int | None, *, parquet: bool = False) -> list[Path]:
    """Write all trials, and the cut baseline if there is one, as CSV and, if wanted, as Parquet; return the paths."""
    paths = write_frame(out / "trials", trials_frame(summary, chosen), parquet=parquet)
    if summary.cut_baseline:
        paths += write_frame(out / "cut_baseline", cut_baseline_frame(summary), parquet=parquet)
    return paths


def write_page(
    out: Path,
    folder: StudyFolder,
    summary: StudySummary,
    chosen: Choice,
    overlays: Sequence[OverlayPoint] = (),
    *,
    with_images: bool = False,
    coco: Path | None = None,
    on_progress: Progress = lambda done, total: None,
) -> list[Path]:
    """Write the study as one HTML page, ``pareto.html``; return its path.

    Parameters
    ----------
    chosen
        What ``kvtune export`` would take.
    with_images, coco, on_progress
        See :func:`kvtune.report.page.study_captions.packed_captions`.
    """
    captions = packed_captions(
        folder, summary, chosen.trial, with_images=with_images, coco=coco, on_progress=on_progress
    )
    path = out / "pareto.html"
    write_text(path, html_page(summary, chosen, captions, overlays, study_argument=folder.argument))
    return [path]


def write_frame(stem: Path, frame: "pd.DataFrame", *, parquet: bool = False) -> list[Path]:
    """Write a frame as ``STEM.csv`` and, if wanted, ``STEM.parquet``; return the paths.

    Raises
    ------
    RequestError
        If Parquet is wanted and pyarrow is not installed.
    """
    paths = [stem.with_name(stem.name + ".csv")]
    write_text(paths[0], frame.to_csv(index=False))
    if parquet:
        check_parquet()
        paths.append(stem.with_name(stem.name + ".parquet"))
        write_bytes(paths[-1], frame.to_parquet(index=False))
    return paths


def check_parquet() -> None:
    """Refuse Parquet where pyarrow is missing.

    Raises
    ------
    RequestError
        With the command that installs it.
    """
    from importlib.util import find_spec

    if find_spec("pyarrow") is None:
        raise RequestError('Parquet needs pyarrow, which is not installed: pip install "kvtune[parquet]"')
