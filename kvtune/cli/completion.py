"""Names that a shell completes at a press of Tab."""

from collections.abc import Iterable
from pathlib import Path

import typer


def models(incomplete: str) -> list[str]:
    """Short names of models."""
    from kvtune.models.published import MODELS

    return _beginning(incomplete, MODELS)


def methods(incomplete: str) -> list[str]:
    """Methods."""
    from kvtune.methods.method import method_names

    return _beginning(incomplete, method_names())


def presets(incomplete: str) -> list[str]:
    """Presets that ship; other ones are files."""
    from kvtune.presets import preset_names

    return _beginning(incomplete, preset_names())


def selections(incomplete: str) -> list[str]:
    """Rules that choose a trial."""
    from kvtune.analysis.selection import RULES

    return _beginning(incomplete, [rule.removesuffix("N") for rule in RULES])


def studies(context: typer.Context, incomplete: str) -> list[str]:
    """Studies in the folder that is named before, else in the usual one."""
    from kvtune.study.study_folder import DEFAULT_STUDIES, study_folders

    folders = study_folders(Path(context.params.get("studies_dir") or DEFAULT_STUDIES))
    return _beginning(incomplete, [folder.name for folder in folders])


def subsets(incomplete: str) -> list[str]:
    """Subsets that ship; other ones are files."""
    from kvtune.coco.subset import named_subsets

    return _beginning(incomplete, named_subsets())


def _beginning(incomplete: str, names: Iterable[str]) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
