"""``kvtune tournament``: methods against each other, each tuned with the same images and budget."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from kvtune.cli import options as opt
from kvtune.cli.common import err, out, print_json, resumable
from kvtune.cli.options import FILES, TRIALS, value
from kvtune.cli.progress import captions_progress
from kvtune.cli.side_files import write_beside
from kvtune.errors import KvtuneError
from kvtune.study import search_defaults

if TYPE_CHECKING:
    from kvtune.search.tournament import Tournament


def tournament(
    model: opt.Model,
    methods: Annotated[str, value("all|A,B,...", "What is tuned: methods, or stacks as kvsmooth+pai.", panel=TRIALS)],
    trials: Annotated[int, value("N", "Finished trials of each method.", panel=TRIALS, min=1)] = search_defaults.TRIALS,
    name: Annotated[
        str | None, value("NAME", "Studies are NAME-METHOD; the model's when left out.", panel=FILES)
    ] = None,
    studies_dir: opt.StudiesDir = opt.STUDIES,
    coco: opt.Coco = None,
    subset: opt.Subset = None,
    images: opt.Images = None,
    holdout_images: opt.HoldoutImages = None,
    prompt: opt.Prompt = None,
    max_new_tokens: opt.MaxNewTokens = search_defaults.MAX_NEW_TOKENS,
    sampler: opt.Sampler = search_defaults.SAMPLER,
    parallel_trials: opt.ParallelTrials = search_defaults.PARALLEL_TRIALS,
    seed: Annotated[int, value("N", "Seed of image draws and sampler.", panel=TRIALS, min=0)] = 0,
    out_dir: Annotated[
        Path | None, value("DIR", "Folder for the picture; this one when left out.", "--out", panel=FILES)
    ] = None,
    device: opt.Device = "auto",
    dtype: opt.Dtype = "auto",
    revision: opt.Revision = None,
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
    """Search a study for each method on the same images, and see on held-out ones which are better beyond doubt.

    They are ordinary studies, decoded together, and the same command again goes on where the last one stopped.
    With --json, no picture is drawn. A method that needs a search space of its own takes part in its study, begun by
    kvtune search --study NAME-METHOD --space FILE.

    Example: kvtune tournament --model demo --methods kvsmooth,pai --trials 8
    """
    from kvtune.files import check_writable
    from kvtune.models.options import EngineOptions, ModelOptions
    from kvtune.report.data.tournament import tournament_document
    from kvtune.search.search_options import SearchOptions
    from kvtune.search.tournament import tournament as run

    picture = (out_dir or Path()) / "tournament"
    if out_dir is not None and not json:
        check_writable(picture.with_suffix(".png"))
    engine = EngineOptions(device, lanes, cuda_graphs, workers, cluster, mixed_workers, gpus_per_worker)
    options = SearchOptions(
        model=ModelOptions(model, dtype, revision, load_in_4bit, load_in_8bit, engine=engine),
        trials=trials,
        studies_dir=studies_dir,
        coco=coco,
        subset=subset,
        images=images,
        holdout_images=holdout_images,
        prompt=prompt,
        max_new_tokens=max_new_tokens,
        sampler=sampler,
        parallel_trials=parallel_trials,
        seed=seed,
    )
    with resumable():
        found = run(options, methods, name, err().say, captions_progress)
    if json:
        print_json(tournament_document(found))
    else:
        _show(found, picture, asked=out_dir is not None)
    if found.failed:
        raise KvtuneError(f"{', '.join(found.failed)} stopped midway, and is not compared; the same command goes on")


def _show(found: "Tournament", picture: Path, asked: bool) -> None:
    """Print what a tournament found, and draw the fronts."""
    from kvtune.report.figures.compare import comparison_figure
    from kvtune.report.figures.drawing import save_pictures
    from kvtune.report.terminal.tournament import tournament_view

    out().print(tournament_view(found, out()))

    def files() -> Iterator[Path]:
        figure = comparison_figure([(entry.summary, entry.chosen) for entry in found.found.entries])
        yield from save_pictures(figure, picture, "fronts of several methods")

    write_beside(files(), asked, "--out DIR")
