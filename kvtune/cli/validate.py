"""``kvtune validate``: front, baseline, published preset on images never searched on."""

from kvtune.cli import options as opt
from kvtune.cli.common import err, out, print_json, resumable
from kvtune.cli.progress import captions_progress


def validate(
    study: opt.Study = None,
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
    """Caption the held-out images with the front, the baseline and the published preset, and compare.

    Differences to the baseline come with 95 % intervals and adjusted p-values. Results go to report/validation.json;
    presets that are exported later carry them. The same command again goes on where the last one stopped.

    Example: kvtune validate demo-kvsmooth
    """
    from kvtune.analysis.validate import validate as run
    from kvtune.models.options import EngineOptions
    from kvtune.report.terminal.held_out import validation_view
    from kvtune.study.study_folder import find_study

    folder = find_study(study, studies_dir)
    engine = EngineOptions(device, lanes, cuda_graphs, workers, cluster, mixed_workers, gpus_per_worker)
    with resumable(), captions_progress("held-out captions") as on_progress:
        found = run(folder, coco, engine, on_progress)
    if json:
        print_json(found.model_dump(mode="json"))
        return
    out().print(validation_view(found, out()))
    err().print_line(f"wrote {folder.validation}")
