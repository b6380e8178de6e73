"""From a chosen trial to the preset that carries it out."""

from kvtune.presets import (
    GenerationInfo,
    MetricsInfo,
    ModelInfo,
    Preset,
    SelectionInfo,
    StudyInfo,
    SubsetInfo,
)
from kvtune.search.claims import evidence
from kvtune.search.layout import StudyFolder
from kvtune.search.ledger import Ledger
from kvtune.search.manifest import load_manifest
from kvtune.search.selection import KEEP_F1, Selection, select
from kvtune.search.summarize import summary_of
from kvtune.search.uncertainty import with_statistics


def export(folder: StudyFolder, rule: str = KEEP_F1) -> tuple[Preset, Selection]:
    """Choose a trial of a study and make it a preset.

    Parameters
    ----------
    rule
        One of :data:`kvtune.search.selection.RULES`.

    Returns
    -------
    (Preset, Selection)
        The preset, not saved yet, and what was chosen by which rule.

    Raises
    ------
    RequestError
        If the study cannot be read, or there is no such rule or trial.
    KvtuneError
        If the rule finds no trial; see :func:`kvtune.search.selection.select`.
    """
    manifest, ledger = load_manifest(folder), Ledger(folder.ledger)
    summary = with_statistics(folder, manifest, ledger, summary_of(folder.name, manifest, ledger))
    selection = select(summary, rule)
    number = selection.trial.number or 0
    fingerprint = manifest.fingerprint
    preset = Preset(
        schema_version=1,
        name=f"{folder.name}-trial-{number}",
        method=fingerprint.method,
        parameters=selection.trial.params,
        model=ModelInfo(
            family=manifest.family, id=fingerprint.model, revision=fingerprint.revision, layers=manifest.layers
        ),
        generation=GenerationInfo(
            prompt=fingerprint.prompt, max_new_tokens=fingerprint.max_new_tokens, dtype=fingerprint.dtype
        ),
        selection=SelectionInfo(rule=selection.rule, on="tune"),
        metrics=MetricsInfo(
            tune=(ledger[number].metrics or {}) | evidence(selection.trial),
            holdout=None,
            baseline=(ledger.baseline.metrics or {}) | (evidence(summary.baseline) if summary.baseline else {}),
        ),
        subset=SubsetInfo(
            name=manifest.tune["name"], sha256=manifest.tune["sha256"], images=len(manifest.tune["image_ids"])
        ),
        study=StudyInfo(name=folder.name, trial=number),
        versions=manifest.versions,
        source="search",
    )
    return preset, selection
