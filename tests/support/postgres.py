"""A PostgreSQL server of Debian's package, in a folder and on a port of its own."""

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

_INSTALLED = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
PROGRAMS = _INSTALLED[-1] if _INSTALLED else None
PASSWORD = "s3cret/with:marks@all"

needs_postgres = pytest.mark.skipif(
    PROGRAMS is None or find_spec("psycopg") is None,
    reason='needs PostgreSQL and psycopg: apt-get install postgresql; pip install -e ".[test]"',
)


class Server:
    """One that only this process uses; ``start`` and ``stop`` as often as wanted, at the same address."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.user = "postgres" if getpass.getuser() == "root" else None  # the server refuses to be root's
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        (folder / "password").write_text(PASSWORD)
        if self.user is not None:
            for path in (folder, folder / "password"):
                shutil.chown(path, self.user)
        self._run(
            "initdb", "-D", "data", "-U", "me", "--pwfile=password", "--auth=scram-sha-256", "--encoding=UTF8",
            "--locale=C", "--no-sync",
        )  # fmt: skip

    def url(self, database: str, password: str | None = None, user: str = "me") -> str:
        """The address of a database; without a password that of the environment is taken."""
        from sqlalchemy.engine import URL

        made = URL.create("postgresql+psycopg", user, password, "127.0.0.1", self.port, database)
        return made.render_as_string(hide_password=False)

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """What a statement of the owner's gives; databases are made by statements too."""
        import psycopg

        address = {"host": "127.0.0.1", "port": self.port, "user": "me", "password": PASSWORD, "dbname": database}
        with psycopg.connect(**address, autocommit=True) as connection:  # type: ignore[arg-type]
            cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def start(self) -> None:
        self._run(
            "pg_ctl", "start", "-D", "data", "-w", "-s", "-l", "log",
            "-o", f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off -c shared_buffers=16MB",
        )  # fmt: skip

    def stop(self) -> None:
        """End it at once, with the connections that there are."""
        self._run("pg_ctl", "stop", "-D", "data", "-w", "-s", "-m", "immediate")

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(PROGRAMS / program), *arguments]  # type: ignore[operator]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        subprocess.run(
            command, cwd=self.folder, env=clean, user=self.user, check=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A server that runs; a folder below /tmp, for tests' own is not open to another user, nor short enough."""
    folder = Path(tempfile.mkdtemp(prefix="kvtune-postgres-", dir="/tmp"))
    try:
        made = Server(folder)
        made.start()
        made.execute("CREATE DATABASE tuned")
        yield made
        made.stop()
    finally:
        shutil.rmtree(folder)
