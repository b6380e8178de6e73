"""Study folders on disk, written through the same code as a search writes them but without a model."""

from collections.abc import Mapping
from pathlib import Path

from kvtune.analysis.summary import StudySummary, TrialSummary
from kvtune.chair import save_ground_truth
from kvtune.coco import Subset
from kvtune.spaces import SearchSpace
from kvtune.study.caption_log import CaptionLog
from kvtune.study.fingerprint import Fingerprint
from kvtune.study.manifest import FORMAT, Manifest
from kvtune.study.study_folder import StudyFolder
from kvtune.study.trials import LedgerWriter, Trial

SPACE = {"method": "kvsmooth", "parameters": {"lambda_ref": {"low": 0.0, "high": 1.0}}}


def write_study(
    studies: Path,
    summary: StudySummary,
    captions: Mapping[int | None, Mapping[int, str]] | None = None,
    ground_truth: Mapping[int, set[str]] | None = None,
    coco: Path | None = None,
) -> StudyFolder:
    """Write a study with the trials of ``summary``; the tune images are those of ``ground_truth``, or 1 to 500."""
    folder = StudyFolder(studies / summary.study)
    tune = Subset.of("tune", "val2014", list(ground_truth or range(1, 501)), 0)
    holdout = Subset.of("holdout", "val2014", [10**6, 10**6 + 1], 0)
    Manifest(
        format=FORMAT,
        id="0" * 32,
        created="2026-01-01T00:00:00+00:00",
        fingerprint=Fingerprint(
            model=summary.model, revision=None, prompt="Describe.", max_new_tokens=64, subset=tune.sha256,
            method="kvsmooth", dtype="float32", seed=0, sampler="tpe", parallel_trials=8, space=SearchSpace(**SPACE),
        ),
        model=summary.model,
        family="llava",
        layers=32,
        published=[],
        tune=tune,
        holdout=holdout,
        coco=str(coco or "coco"),
        versions={},
        device="cpu",
        lanes="auto",
        scorer="test",
        reference_point=summary.reference_point,
    ).save(folder.manifest)  # fmt: skip
    ledger = LedgerWriter(folder.ledger)
    ledger.ask([Trial(t.number, t.params, t.published) for t in summary.trials])
    for trial in [*([summary.baseline] if summary.baseline else []), *summary.trials]:
        if trial.state == "complete":
            ledger.complete(trial.number, metrics(trial) | {"images": len(tune.image_ids)}, "test")
        elif trial.state == "failed":
            ledger.fail(trial.number or 0, "out of memory")
    ledger.close()
    for number, texts in (captions or {}).items():
        log = CaptionLog(folder.trial_captions(number))
        for image, text in texts.items():
            log.append(image, text, tokens=len(text.split()), finish_reason="eos")
        log.close()
    if ground_truth is not None:
        save_ground_truth(ground_truth, folder.ground_truth)
    return folder


def metrics(trial: TrialSummary) -> dict[str, float | int | str | None]:
    """A trial's scores as the ledger keeps them."""
    assert trial.scores is not None
    return trial.scores.to_dict() | {"scorer": "test"}
