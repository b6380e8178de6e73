"""Deleting and renaming a study."""

import shutil
from contextlib import closing

from kvtune.errors import KvtuneError, RequestError
from kvtune.study.lock import locked
from kvtune.study.manifest import load_manifest, load_trials
from kvtune.study.study_folder import StudyFolder, check_name


def delete_study(folder: StudyFolder) -> None:
    """Delete a study with its captions; a copy in another Optuna storage stays.

    Raises
    ------
    RequestError
        If the study is in use.
    KvtuneError
        If something of it cannot be deleted.
    """
    with locked(folder.path):
        try:
            folder.manifest.unlink()  # what is left after a kill is no study any more
            shutil.rmtree(folder.path)
        except OSError as error:
            raise KvtuneError(f"cannot delete {folder.path}: {error.strerror or error}") from error


def rename_study(folder: StudyFolder, name: str) -> StudyFolder:
    """Give a study another name, in its ``study.db`` too; a copy in another Optuna storage keeps the old one.

    Raises
    ------
    RequestError
        If the name cannot be a study's or is taken, or the study is in use or cannot be read.
    KvtuneError
        If a file cannot be written.
    """
    from kvtune.study.optuna_copy import OptunaCopy

    new = StudyFolder(folder.path.with_name(check_name(name)))
    if new.path.exists():
        raise RequestError(f"{new.path} is there already; choose another name")
    with locked(folder.path):
        manifest = load_manifest(folder)
        ledger = load_trials(folder, manifest)
        has_database = folder.database.exists()
        folder.database.unlink(missing_ok=True)  # which has the old name in it, and is built anew
        try:
            folder.path.rename(new.path)
        except OSError as error:
            raise KvtuneError(f"cannot rename {folder.path}: {error.strerror or error}") from error
        if has_database:
            with closing(OptunaCopy(new, manifest, None)) as optuna:
                optuna.rebuild(ledger)
    return new
