"""``kvtune sensitivity``: one parameter varied, the others held; importance."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from kvtune.cli import options as opt
from kvtune.cli.common import out, print_json, resumable
from kvtune.cli.options import value
from kvtune.cli.progress import captions_progress
from kvtune.cli.side_files import write_beside


def sensitivity(
    study: opt.Study = None,
    select: opt.Select = "keep-f1",
    parameter: Annotated[
        list[str] | None,
        value("NAME", "Parameter to vary; all that were searched when left out. Repeatable."),
    ] = None,
    points: Annotated[int, value("N", "Values of each parameter.")] = 9,
    coco: opt.StudyCoco = None,
    device: opt.Device = "auto",
    lanes: opt.Lanes = "auto",
    cuda_graphs: opt.CudaGraphs = True,
    workers: opt.Workers = None,
    cluster: opt.Cluster = None,
    mixed_workers: opt.MixedWorkers = False,
    gpus_per_worker: opt.GpusPerWorker = 1,
    studies_dir: opt.StudiesDir = opt.STUDIES,
    json: opt.Json = False,
) -> None:
    """Vary one parameter at a time around a trial, on the tune images, and say which parameters matter.

    Captions that trials have paid for are used again. Results go to report/: sensitivity.json, .csv, .png and .svg.

    Example: kvtune sensitivity demo-kvsmooth --parameter lambda_ref --select trial:0
    """
    from kvtune.analysis.sensitivity import sensitivity as run
    from kvtune.models.options import EngineOptions
    from kvtune.study.study_folder import find_study

    folder = find_study(study, studies_dir)
    engine = EngineOptions(device, lanes, cuda_graphs, workers, cluster, mixed_workers, gpus_per_worker)
    with resumable(), captions_progress("captions") as on_progress:
        found = run(folder, coco, select, parameter or (), points, engine, on_progress)
    if json:
        print_json(found.model_dump(mode="json"))
        return

    from kvtune.report.data.frames import sensitivity_frame
    from kvtune.report.figures.drawing import save_pictures
    from kvtune.report.figures.sensitivity import sensitivity_figure
    from kvtune.report.study_files import write_frame
    from kvtune.report.terminal.sensitivity import offers, sensitivity_view

    out().print(sensitivity_view(found, out()))
    for line in offers(found, folder):
        out().print(line, soft_wrap=line.startswith(" ") or not out().is_terminal)
    stem = folder.report / "sensitivity"

    def files() -> Iterator[Path]:
        yield stem.with_suffix(".json")
        yield from write_frame(stem, sensitivity_frame(found))
        yield from save_pictures(sensitivity_figure(found), stem, f"{found.study}: sensitivity")

    write_beside(files())
