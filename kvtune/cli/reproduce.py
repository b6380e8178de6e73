"""``kvtune reproduce``: the paper's tables with your weights."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from kvtune.cli import options as opt
from kvtune.cli.common import err, out, print_json, resumable
from kvtune.cli.options import value
from kvtune.cli.progress import captions_progress, progress
from kvtune.cli.side_files import write_beside


def reproduce(
    table: Annotated[
        Literal["table1", "table4"], typer.Argument(help="table1: methods; table4: ablations.", metavar="TABLE")
    ],
    models: Annotated[
        list[str] | None,
        value(
            "NAMES",
            "Models, repeatable or separated by commas: short names, folders, Hub ids.  "
            "[default: llava-1.5,minigpt4,instructblip]",
            "--models",
            "-m",
        ),
    ] = None,
    images: Annotated[
        int | None,
        value("N", "Only the first so many images, to try it.  [default: 500; demo: 100]"),
    ] = None,
    coco: opt.Coco = None,
    out_dir: Annotated[Path, value("DIR", "Folder of captions and results.", "--out")] = Path("reproductions"),
    device: opt.Device = "auto",
    dtype: opt.Dtype = "auto",
    load_in_4bit: opt.LoadIn4Bit = False,
    load_in_8bit: opt.LoadIn8Bit = False,
    lanes: opt.Lanes = "auto",
    cuda_graphs: opt.CudaGraphs = True,
    workers: opt.Workers = None,
    cluster: opt.Cluster = None,
    mixed_workers: opt.MixedWorkers = False,
    gpus_per_worker: opt.GpusPerWorker = 1,
    json: opt.Json = False,
) -> None:
    """Caption opera500 as the KVSmooth paper does, and print our numbers beside the reported ones.

    table1: greedy decoding, the best constant factor, KVSmooth, other methods as published for the model; greedy with
    OPERA's question as a check.

    table4: keys alone, the attention output, a constant factor, and KVSmooth.

    Captions are kept, and shared by both tables; the same command goes on after an interruption.

    Example: kvtune reproduce table1 --models llava-1.5
    """
    from kvtune.models.options import EngineOptions, ModelOptions
    from kvtune.report.data.reproduction import reproduction_document
    from kvtune.report.reproduction_files import write_reproduction
    from kvtune.report.terminal.reproduction import reproduction_view
    from kvtune.reproduce import PAPER_MODELS, Request
    from kvtune.reproduce import reproduce as run

    named = [name.strip() for each in models or PAPER_MODELS for name in each.split(",")]
    engine = EngineOptions(device, lanes, cuda_graphs, workers, cluster, mixed_workers, gpus_per_worker)
    options = [ModelOptions(name, dtype, None, load_in_4bit, load_in_8bit, engine=engine) for name in named]
    request = Request(table, options, images, coco, out_dir)
    results = []
    with resumable():
        for folder, found in run(request, progress, captions_progress, err().say):
            results.append(found)
            if not json:
                out().print(reproduction_view(found, out()))
            write_beside(write_reproduction(folder.path, found), asked=True)
    if json:
        print_json(reproduction_document(results))
