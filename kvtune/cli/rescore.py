"""``kvtune rescore``: scores rebuilt from the stored captions."""

from pathlib import Path
from typing import Annotated

from kvtune.cli import options as opt
from kvtune.cli.common import out, print_json
from kvtune.cli.options import value


def rescore(
    study: opt.Study = None,
    coco: Annotated[
        Path | None,
        value("DIR", "Take the ground truth from this COCO folder, not from the study's copy."),
    ] = None,
    storage: opt.Storage = None,
    studies_dir: opt.StudiesDir = opt.STUDIES,
    json: opt.Json = False,
) -> None:
    """Score the stored captions again and build study.db anew; no model, no GPU.

    Example: kvtune rescore demo-kvsmooth
    """
    from kvtune.analysis.selection import choose
    from kvtune.analysis.summarize import summarize
    from kvtune.report import facts
    from kvtune.report.data.document import study_document
    from kvtune.study.rescore import rescore_study
    from kvtune.study.study_folder import find_study
    from kvtune.text import number_of

    folder = find_study(study, studies_dir)
    changed = rescore_study(folder, coco, storage)
    summary = summarize(folder)
    if json:
        print_json({"changed": changed} | study_document(summary, choose(summary)))
        return
    scored = sum(trial.scores is not None for trial in summary.trials) + (summary.baseline is not None)
    out().say(f"{folder.name}: {number_of(scored, 'setting')} scored again, {changed} with other scores")
    out().say(f"{facts.progress(summary)}; {facts.volume(summary)}")
