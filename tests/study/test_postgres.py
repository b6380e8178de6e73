"""The Optuna copy in PostgreSQL: real servers, that are down, refuse, and come back."""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import optuna
import pytest
from fake_search import FakeCaptioner, new_study, run_search
from postgres import PASSWORD, Server, needs_postgres, server
from scored_studies import scored_study

from kvtune.analysis.summarize import summarize
from kvtune.cli.main import main
from kvtune.errors import RequestError
from kvtune.search.view import View
from kvtune.study.rescore import rescore_study
from kvtune.study.storage_url import check_storage
from kvtune.study.study_folder import StudyFolder

__all__ = ["server"]
pytestmark = [needs_postgres, pytest.mark.slow]
WRONG = "wr0ng:secret"


@pytest.fixture
def database(server: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The address of the one database, its password in the environment; each test's study has a name of its own."""
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    return server.url("tuned")


def stored(folder: StudyFolder, url: str) -> list[tuple[Any, ...]]:
    study = optuna.load_study(study_name=folder.name, storage=url)
    return [(trial.number, trial.params, trial.values) for trial in study.trials]


def recorded(folder: StudyFolder) -> list[tuple[Any, ...]]:
    return [(trial.number, trial.params, list(trial.point or ())) for trial in summarize(folder).trials]


def without_fixed(trials: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    fixed = ("adaptive", "target")
    return [(number, {k: v for k, v in params.items() if k not in fixed}, values) for number, params, values in trials]


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """The one line of a refusal; it shows no password."""
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in words])
    err = capsys.readouterr().err
    assert ended.value.code == 2 and err.count("\n") == 1, err
    assert not any(secret in err for secret in (PASSWORD, WRONG, "s3cret", "wr0ng"))
    return err


def test_rescore_makes_a_copy(server: Server, database: str, tmp_path: Path) -> None:
    folder = scored_study(tmp_path / "rescored", images=6, trials=3)
    for _ in range(2):  # there is none, there is one
        rescore_study(folder, storage=database)
        assert stored(folder, database) == without_fixed(recorded(folder))


def test_nothing_but_the_copy_knows_the_address(server: Server, database: str, tmp_path: Path) -> None:
    folder, manifest = new_study(tmp_path / "searched", images=4)
    run_search(folder, manifest, 2, storage=database.replace("me@", "me:s3cret%2Fwith%3Amarks%40all@"))
    run_search(folder, manifest, 4, storage=database)
    assert stored(folder, database) == without_fixed(recorded(folder)) and len(recorded(folder)) == 4
    written = b"".join(path.read_bytes() for path in folder.path.rglob("*") if path.is_file())
    assert b"s3cret" not in written and b"127.0.0.1" not in written


def test_what_cannot_be_opened_is_one_line(
    server: Server, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    server.execute("CREATE ROLE reader LOGIN PASSWORD 'reading'")
    server.execute("CREATE DATABASE empty")
    with socket.socket() as probe:  # nothing listens there
        probe.bind(("127.0.0.1", 0))
        nobody = server.url("tuned").replace(str(server.port), str(probe.getsockname()[1]))
        cases = {
            nobody: "refused; start the server, or leave --storage out",
            server.url("tuned", WRONG): 'password authentication failed for user "me"; give it in the URL or as PGPASS',
            server.url("nosuch"): 'database "nosuch" does not exist; make it with createdb, or name another',
            server.url("empty", "reading", "reader"): "reader may not write there; GRANT it",
        }
        for url, said in cases.items():
            for debug in ([], ["--debug"]):
                asked = ["search", "--model", "demo", "--storage", url]
                with pytest.raises(SystemExit) as ended:
                    main([*debug, *asked])
                err = capsys.readouterr().err
                assert ended.value.code == 2 and said in err, err
                assert debug or err.count("\n") == 1
                assert "s3cret" not in err and "wr0ng" not in err
    monkeypatch.setenv("PGPASSWORD", WRONG)
    assert "password authentication failed" in refused(capsys, "search", "--model", "demo", "--storage", database)
    monkeypatch.delenv("PGPASSWORD")
    assert "PGPASSWORD" in refused(capsys, "search", "--model", "demo", "--storage", database)
    assert list(tmp_path.iterdir()) == []


class Leaving(FakeCaptioner):
    """Ends the server amid the work, and starts it again where asked to."""

    def __init__(self, server: Server, stop: int, start: int | None = None) -> None:
        super().__init__(in_flight=2)
        self.at = {stop: server.stop} | ({} if start is None else {start: server.start})

    def finish(self, batch: list[Any]) -> Any:
        if len(self.asked) in self.at:
            self.at.pop(len(self.asked))()
        return super().finish(batch)


class Notes(View):
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        if "storage" in text:
            self.said.append(text)


@pytest.mark.usefixtures("optuna_in_step")
@pytest.mark.parametrize("back", [False, True], ids=["away", "back"])
def test_a_server_that_leaves_stops_nothing(server: Server, database: str, tmp_path: Path, back: bool) -> None:
    alone, manifest = new_study(tmp_path / "alone", images=4)
    run_search(alone, manifest, 8)
    folder, manifest = new_study(tmp_path / f"back-{back}", images=4)
    notes = Notes()
    captioner = Leaving(server, 8, 30 if back else None)
    try:
        run_search(folder, manifest, 8, captioner, view=notes, storage=database)
        assert recorded(folder) == recorded(alone)
        assert "the search goes on without it" in notes.said[0] and "s3cret" not in notes.said[0]
        assert len(notes.said) == (1 if back else 2)
    finally:
        if not back:
            server.start()
    if not back:
        assert len(stored(folder, database)) < 8
        run_search(folder, manifest, 8, storage=database)  # nothing to do but this
    assert stored(folder, database) == without_fixed(recorded(folder))


def test_dashboard(server: Server, database: str, tmp_path: Path) -> None:
    pytest.importorskip("optuna_dashboard", reason='needs optuna-dashboard: pip install -e ".[test]"')
    folder, manifest = new_study(tmp_path / "shown", images=4)
    run_search(folder, manifest, 2, storage=database)
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    words = ["dashboard", str(folder.path), "--storage", database, "--port", str(port)]
    process = subprocess.Popen([sys.executable, "-m", "kvtune.cli.main", *words], stderr=subprocess.DEVNULL)
    try:
        while process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://localhost:{port}/api/studies", timeout=5) as answer:
                    found = json.load(answer)["study_summaries"]
                break
            except OSError:
                time.sleep(0.1)
        assert "shown" in [each["study_name"] for each in found]
    finally:
        process.terminate()
        process.wait(10)


def test_without_a_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(RequestError, match=r'needs a driver: pip install "kvtune\[postgres\]"') as caught:
        check_storage(f"postgresql+psycopg://me:{WRONG}@h/d", "s", None)
    assert "wr0ng" not in str(caught.value)
