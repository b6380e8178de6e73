"""A study in optuna-dashboard."""

from importlib.util import find_spec

from kvtune.errors import RequestError
from kvtune.study.manifest import load_manifest
from kvtune.study.storage_url import check_storage
from kvtune.study.study_folder import StudyFolder
from kvtune.text import sqlite_url


def dashboard_storage(folder: StudyFolder, storage: str | None = None) -> str:
    """Return the URL of the storage that the dashboard opens.

    Parameters
    ----------
    storage
        URL that the study was searched with, if it was not ``study.db``.

    Raises
    ------
    RequestError
        If optuna-dashboard is not installed, the study keeps no ``study.db``, or the storage cannot be opened or holds
        another study of this name.
    """
    if find_spec("optuna_dashboard") is None:
        raise RequestError('optuna-dashboard is not installed: pip install "kvtune[dashboard]"')
    if storage is not None:
        check_storage(storage, folder.name, load_manifest(folder).id)
        return storage
    if not folder.database.exists():
        raise RequestError(
            f"study {folder.name} has no {folder.database.name}; name the storage it was searched with by --storage, "
            f"or make one: kvtune rescore {folder.argument}"
        )
    return sqlite_url(folder.database)


def serve(storage: str, host: str, port: int) -> None:
    """Serve the dashboard until Ctrl-C.

    Raises
    ------
    RequestError
        If nothing can listen at ``host`` and ``port``.
    """
    from concurrent.futures import Future
    from threading import Thread

    from optuna_dashboard import run_server

    served: Future[None] = Future()

    def run() -> None:
        try:
            served.set_result(run_server(storage, host=host, port=port))
        except BaseException as error:
            served.set_exception(error)

    # A signal that comes while a request is answered would be taken for an error of that request, and be lost.
    Thread(target=run, daemon=True).start()
    try:
        served.result()
    except OSError as error:
        raise RequestError(
            f"cannot listen at {host}:{port}: {error.strerror or error}; choose another --port"
        ) from error
