"""``kvtune search``: run or continue a study."""

from pathlib import Path
from typing import Annotated

from kvtune.cli import completion
from kvtune.cli import options as opt
from kvtune.cli.common import err, out, print_json, resumable
from kvtune.cli.options import FILES, MODEL, RACING, TRIALS, flag, value
from kvtune.cli.progress import busy
from kvtune.statistics.confidence import RACE_CONFIDENCE
from kvtune.study import search_defaults


def search(
    model: opt.Model,
    trials: Annotated[
        int, value("N", "Finished trials that the study holds at the end.", panel=TRIALS)
    ] = search_defaults.TRIALS,
    study: Annotated[str | None, value("NAME", "Name of the study; MODEL-METHOD when left out.", panel=FILES)] = None,
    studies_dir: opt.StudiesDir = opt.STUDIES,
    method: Annotated[
        str,
        value(
            "METHOD",
            "What is tuned: a method, a stack (A+B), or several to choose among (A,B).",
            panel=TRIALS,
            complete=completion.methods,
        ),
    ] = search_defaults.METHOD,
    space: Annotated[
        Path | None, value("FILE", "Search space (YAML); the model family's when left out.", panel=TRIALS)
    ] = None,
    coco: opt.Coco = None,
    subset: opt.Subset = None,
    images: opt.Images = None,
    holdout_images: opt.HoldoutImages = None,
    prompt: opt.Prompt = None,
    max_new_tokens: opt.MaxNewTokens = search_defaults.MAX_NEW_TOKENS,
    depth: Annotated[
        str | None,
        value(
            "SOURCE",
            "Depth for dscr: a depth estimator (folder or Hub id), a folder of maps, scenes (the demo's), or none.",
            panel=MODEL,
        ),
    ] = None,
    sampler: opt.Sampler = search_defaults.SAMPLER,
    parallel_trials: opt.ParallelTrials = search_defaults.PARALLEL_TRIALS,
    seed: opt.Seed = 0,
    storage: Annotated[str | None, value("URL", "Optuna storage instead of study.db.", panel=FILES)] = None,
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
    race_confidence: Annotated[
        float,
        value("P", "Least probability, 0 to 1, that racing spares a trial which no other dominates.", panel=RACING),
    ] = RACE_CONFIDENCE,
    race: Annotated[
        bool, flag("Stop trials that others have beaten beyond doubt.", "--race/--no-race", panel=RACING)
    ] = True,
    min_f1: Annotated[
        str | None,
        value("FLOOR", "Lowest F1, in %, on front and in exports: 72, baseline or baseline-2.", panel=RACING),
    ] = None,
    min_words: Annotated[
        str | None, value("FLOOR", "Fewest words a caption on front and in exports: 60 or baseline-10.", panel=RACING)
    ] = None,
    timeout: Annotated[
        str | None, value("TIME", "End after this time, 2h, 90m or 45s; the same command goes on.", panel=TRIALS)
    ] = None,
    start_from: Annotated[
        str | None,
        value(
            "STUDY",
            "Try the front of another study first: its name or folder.",
            "--from",
            panel=TRIALS,
            complete=completion.studies,
        ),
    ] = None,
    enqueue: Annotated[
        list[str] | None,
        value("NAME=VALUE,...", "Try this setting next, as kvtune sensitivity offers it. Repeatable.", panel=TRIALS),
    ] = None,
    json: opt.Json = False,
) -> None:
    """Search a method's parameters: hallucination (CHAIR_S) down, usefulness (F1) up.

    The same command again goes on where the last one stopped; more --trials extend the study.

    Examples:

    kvtune search --model demo --trials 12

    kvtune search --model demo --trials 12 --study kept --min-f1 baseline-2 --min-words baseline-10

    kvtune search --model demo --trials 12 --study next --from kept --timeout 90m
    """
    from kvtune.models.options import EngineOptions, ModelOptions
    from kvtune.study.deadline import Deadline, parse_duration

    # The time that it takes to load what follows counts too.
    deadline = Deadline(None if timeout is None else parse_duration(timeout))
    with busy("making ready"):
        from kvtune.analysis.selection import choose
        from kvtune.report import facts
        from kvtune.report.data.document import study_document
        from kvtune.report.terminal.live import view_for
        from kvtune.report.terminal.trials import trials_table
        from kvtune.search.search_options import SearchOptions
        from kvtune.search.session import search as run
        from kvtune.study.study_folder import StudyFolder

    engine = EngineOptions(device, lanes, cuda_graphs, workers, cluster, mixed_workers, gpus_per_worker)
    options = SearchOptions(
        model=ModelOptions(model, dtype, revision, load_in_4bit, load_in_8bit, engine=engine),
        method=method,
        space=space,
        trials=trials,
        study=study,
        studies_dir=studies_dir,
        coco=coco,
        subset=subset,
        images=images,
        holdout_images=holdout_images,
        prompt=prompt,
        max_new_tokens=max_new_tokens,
        depth=depth,
        sampler=sampler,
        parallel_trials=parallel_trials,
        seed=seed,
        storage=storage,
        race_confidence=race_confidence if race else None,
        min_f1=min_f1,
        min_words=min_words,
        start_from=start_from,
        enqueue=enqueue or (),
    )
    with resumable():
        summary = run(options, view_for(err()), deadline)
    chosen = choose(summary)
    if json:
        print_json(study_document(summary, chosen))
        return
    out().print(trials_table(summary, chosen.trial, out()))
    out().print()
    out().say(*facts.same_rates(summary, chosen.trial))
    out().say(f"{facts.progress(summary)}; {facts.volume(summary)}")
    folder = StudyFolder(studies_dir.expanduser() / summary.study)
    out().print_line(f"Look at it: kvtune pareto {folder.argument}")
    if chosen.trial is None:
        out().say(f"No point to take: {chosen.reason}")
    else:
        out().print_line(f"Take a point: kvtune export {folder.argument} --out preset.json")
