"""An Optuna storage elsewhere, named by a database URL: opened, or refused in one line that shows no password."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import Engine, create_engine, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from kvtune.errors import KvtuneError, RequestError
from kvtune.files import check_writable
from kvtune.text import quoted, without_passwords

STUDY_ID = "kvtune_study"
"""The attribute of an Optuna study that says which study of kvtune's it is a copy of."""
CONNECT_TIMEOUT = 10
"""Seconds that a PostgreSQL server has to answer, unless the URL or PGCONNECT_TIMEOUT says otherwise."""
CURES = {
    "password": "give it in the URL or as PGPASSWORD",
    "does not exist": "make it with createdb, or name another",
    "refused": "start the server, or leave --storage out",
    "timeout": "start the server, or leave --storage out",
}
"""What helps where a server's or driver's message has these words."""


_PACKAGES = {"psycopg": '"kvtune[postgres]"', "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}
"""What to install for a driver whose module is called otherwise."""


def check_storage(url: str, name: str, study_id: str | None) -> None:
    """Check that an Optuna storage can be opened and holds no other study of this name; nothing is written.

    Parameters
    ----------
    name, study_id
        The study's name and the id in its manifest; no id for a study that is yet to begin.

    Raises
    ------
    RequestError
        If it cannot: no such server, no driver for it, no permission, the name taken.
    """
    parsed = _parsed(url)
    with _opening(url):
        is_file = parsed.get_backend_name() == "sqlite" and "uri" not in parsed.query
        if is_file and parsed.database in (None, "", ":memory:"):
            raise ValueError("a storage in memory is lost at the end; name a file")
        if is_file and not Path(str(parsed.database)).exists():
            path = Path(str(parsed.database))
            check_writable(path)
            if not path.absolute().parent.is_dir():
                raise ValueError(f"there is no folder {path.parent}")
            with tempfile.TemporaryFile(dir=path.absolute().parent):
                return
        engine = create_engine(parsed, **_engine_settings(parsed))
        try:
            has_tables = inspect(engine).has_table("studies")
            if parsed.get_backend_name() == "postgresql":
                _check_may_write(engine, has_tables)
        finally:
            engine.dispose()
    if not has_tables:
        return
    storage = open_remote(url)
    try:
        found = storage.get_study_id_from_name(name)
        attributes = storage.get_study_user_attrs(found)
        is_ours = study_id is not None and attributes.get(STUDY_ID) == study_id
        if not is_ours and (attributes or storage.get_n_trials(found)):
            raise other_study(name)
    except KeyError:  # no study of this name
        pass
    finally:
        storage.remove_session()
        storage.engine.dispose()


def open_remote(url: str) -> RDBStorage:
    """Open a storage; errors as :func:`check_storage`."""
    parsed = _parsed(url)
    with _opening(url):
        return RDBStorage(url, engine_kwargs=_engine_settings(parsed))


def reason(error: Exception, url: str) -> str:
    """What a driver says, without the passwords that it was given, and what helps."""
    if isinstance(error, StorageInternalError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    said = _without_secrets(_first_line(getattr(error, "orig", None) or error), url).removeprefix("connection failed: ")
    cure = next((cure for sign, cure in CURES.items() if sign in said), None)
    return said if cure is None else f"{said}; {cure}"


def other_study(name: str) -> RequestError:
    """The error that a storage holds another study of this name."""
    return RequestError(f"the Optuna storage holds another study called {name}; choose another --study name")


def _parsed(url: str) -> URL:
    try:
        return make_url(url.format(SCHEMA_VERSION=0))  # which Optuna fills in
    except (ArgumentError, ValueError, LookupError):
        raise RequestError(
            f"--storage {quoted(url)} is no database URL; write it as sqlite:///FILE or "
            "postgresql+psycopg://USER@HOST/NAME"
        ) from None


def _check_may_write(engine: Engine, has_tables: bool) -> None:
    """Refuse a PostgreSQL user who may look at the database and no more, as anyone may since version 15."""
    asked = (
        "has_table_privilege('trials', 'INSERT')" if has_tables else "has_schema_privilege(current_schema(), 'CREATE')"
    )
    with engine.connect() as connection:
        if not connection.execute(text(f"SELECT {asked}")).scalar():
            user = engine.url.username or "the user"
            raise ValueError(f"{user} may not write there; GRANT it, or name another user")


def _engine_settings(parsed: URL) -> dict[str, Any]:
    """How a server is reached: not one that never answers, nor by a connection that was lost since its last use."""
    if parsed.get_backend_name() != "postgresql":
        return {}
    settings: dict[str, Any] = {"pool_pre_ping": True}
    takes_timeout = parsed.get_driver_name() in ("psycopg", "psycopg2")
    if takes_timeout and "connect_timeout" not in parsed.query and "PGCONNECT_TIMEOUT" not in os.environ:
        settings["connect_args"] = {"connect_timeout": CONNECT_TIMEOUT}
    return settings


@contextlib.contextmanager
def _opening(url: str) -> Iterator[None]:
    """Turn whatever keeps a storage from being opened into one line without a password."""
    try:
        yield
    except KvtuneError:
        raise
    except Exception as error:  # SQLAlchemy's, Optuna's, and those of any driver
        shown = quoted(url)
        if isinstance(error, NoSuchModuleError):
            raise RequestError(
                f"--storage {shown} names a kind of database that is not known; write sqlite or postgresql+psycopg"
            ) from None
        missing = error.__cause__ if isinstance(error.__cause__, ImportError) else error
        if isinstance(missing, ImportError):  # no psycopg, or psycopg without a libpq
            package = _PACKAGES.get(missing.name or "psycopg", missing.name)
            raise RequestError(f"--storage {shown} needs a driver: pip install {package}") from None
        raise RequestError(f"--storage {shown} cannot be opened: {reason(error, url)}") from None


def _without_secrets(message: str, url: str) -> str:
    """A driver's message without the passwords of the URL that it was given."""
    secrets = [os.environ.get("PGPASSWORD")]
    with contextlib.suppress(ArgumentError, ValueError):
        parsed = make_url(url)
        secrets += [parsed.password, *(str(value) for key, value in parsed.query.items() if "pass" in key.lower())]
    for secret in filter(None, secrets):
        message = message.replace(secret, "***")
    return without_passwords(message)


def _first_line(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
