"""Text on its way into a terminal, a message, a shell, a database URL and JSON."""

import json
import shutil
import sqlite3
import string
import subprocess

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sqlalchemy import create_engine

from kvtune.text import (
    command_line,
    json_text,
    one_line,
    quoted,
    sqlite_url,
    url_without_password,
    visible,
    without_passwords,
)

ANY_TEXT = st.text(st.characters(codec=None))
ARGUMENT = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
HARMLESS = set(map(chr, range(0x20, 0x7F))) | {"\t", "\n"}


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain [red]text[/red] :smile: é 猫 👩‍🚀", "plain [red]text[/red] :smile: é 猫 👩‍🚀"),
        ("\x1b[31mred\x1b]0;title\x07", "\\x1b[31mred\\x1b]0;title\\x07"),
        ("over\rwritten\b\x7f\x9b2J", "over\\rwritten\\x08\\x7f\\x9b2J"),
        ("gnp.\u202etac", "gnp.\\u202etac"),
        ("undecodable \udcff", "undecodable \\udcff"),
        ("two\nlines\tapart", "two\nlines\tapart"),
    ],
)
def test_control_characters_are_seen(text, shown):
    assert visible(text) == shown
    assert visible(visible(text)) == shown


@given(ANY_TEXT)
def test_what_is_shown_holds_nothing_that_a_terminal_obeys(text):
    shown = visible(text)
    assert all(character in HARMLESS or character.isprintable() or ord(character) > 0x9F for character in shown)
    shown.encode()
    assert len(one_line(text).splitlines()) <= 1


@given(ARGUMENT)
@example("a\\'b\n\x1b[31m\u202e")
@example("")
def test_json_is_exact_and_every_file_takes_it(text):
    written = json_text({text: [text, 1.5, None]}, indent=2)
    assert json.loads(written) == {text: [text, 1.5, None]}
    assert visible(written) == written


def test_json_of_undecodable_names():
    assert json.loads(json_text("\udcff").encode()) == "\udcff"


def test_a_shell_gets_every_word_back():
    """One bash reads what a thousand words were written as."""
    if shutil.which("bash") is None:
        pytest.skip("no bash")
    words: list[str] = ["", "a b", "it's", "\\", "\x1b[31m'\\x\n\ttab", "$HOME `x` \u202e é!", "a\x01b\x7fc\x9b1"]
    words += [left + right for left in string.punctuation for right in ("a", "\x1b", " '")]
    printed = subprocess.run(["bash", "-c", f"printf '%s\\0' {command_line(words)}"], capture_output=True, check=True)
    assert printed.stdout.decode().split("\0")[:-1] == words


@given(st.lists(ARGUMENT))
def test_a_command_line_is_safe_to_show(words):
    shown = command_line(words)
    assert visible(shown) == shown and "\n" not in shown


SECRET = st.text(st.sampled_from("aB3/:@?&#=% ;,'\"\\[]{}!\té"), min_size=1).map(lambda text: f"SE{text}CRET")


@given(SECRET)
@example("SE@CRET")
@example("SE/CRET")
def test_no_part_of_a_password_is_shown(secret):
    for url in (
        f"postgresql+psycopg://user:{secret}@host:5432/name",
        f"--storage=mysql://user:{secret}@host/name?charset=utf8",
    ):
        assert "SE" not in url_without_password(url).replace("user:***@", "")
        assert "CRET" not in url_without_password(url)
        assert "CRET" not in command_line(["kvtune", "search", url])
        assert "CRET" not in quoted(url)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://user:SECRET@host/db", "postgresql://user:***@host/db"),
        ("postgresql://:SECRET@host/db", "postgresql://:***@host/db"),
        ("postgresql://host/db?user=me&password=SECRET", "postgresql://host/db?user=me&password=***"),
        ("postgresql://host/db?sslpassword=SECRET&x=1", "postgresql://host/db?sslpassword=***&x=1"),
        ("mysql://host/db?x=1&PassWd=SECRET", "mysql://host/db?x=1&PassWd=***"),
        ("https://host/file?access_token=SECRET", "https://host/file?access_token=***"),
        ("sqlite:////tmp/a b@c.db", "sqlite:////tmp/a b@c.db"),
        ("http://127.0.0.1:8080/file", "http://127.0.0.1:8080/file"),
        ("user@host: no url", "user@host: no url"),
    ],
)
def test_passwords(url, shown):
    assert url_without_password(url) == shown
    assert without_passwords(f"it failed: {url} (12:30, a@b)") == f"it failed: {shown} (12:30, a@b)"
    assert one_line(f"it\n failed: {url}\n") == f"it failed: {shown}"


def test_long_values_are_quoted_short():
    assert quoted("short") == "'short'"
    assert quoted(1.5) == "1.5" and quoted(None) == "None" and quoted(["a"]) == "['a']"
    assert len(quoted("x" * 5000)) < 90 and quoted("ab" * 200).startswith("'abab") and "..." in quoted("y" * 300)
    assert quoted("\x1b[31m\n") == "'\\x1b[31m\\n'"


@pytest.mark.parametrize(
    "name", ["plain", "a?b=c", "100%", "%41", "[red]", "{x}", "a b#c&d;e'f\"g:h@i", "é\n", "file:x"]
)
def test_a_database_is_where_its_path_says(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    url = sqlite_url(folder / "study.db")
    url.format(SCHEMA_VERSION=12)  # as Optuna does
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE here (number)")
    engine.dispose()
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert [path.name for path in folder.iterdir()] == ["study.db"]
    with sqlite3.connect(folder / "study.db") as database:
        assert database.execute("SELECT name FROM sqlite_master").fetchall() == [("here",)]
