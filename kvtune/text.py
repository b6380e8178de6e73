"""Text on its way into another language: a terminal, a message, a shell, a database URL, JSON.

Names of files, models and studies, questions, captions and what servers answer may hold any character. Each function
here is the one way into its language.
"""

import difflib
import json
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # but for tab and line feed
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"  # lines end, and writing turns round
    "\ud800-\udfff]"  # halves of characters: undecodable bytes of a file's name
)
_LINE_BREAKS = re.compile(r"[ \t\r]*\n\s*")
_CREDENTIALS = re.compile(r"(?<=://)([^\s:/@]*):\S+@")
_WHOLE_CREDENTIALS = re.compile(r"(?<=://)([^\s:/@]*):.+@", re.DOTALL)
_SECRETS = re.compile(
    r"(?<=[?&;])((?:\w*[_-])?(?:\w*password|passwd|pwd|passphrase|passfile|secret|token|api[_-]?key)=)[^\s&;]*",
    re.IGNORECASE,
)
_IS_URL = re.compile(r"[A-Za-z0-9-]*=?[A-Za-z][A-Za-z0-9+.-]*://")
_LONGEST = 80
"""Characters of a value that a message quotes."""

ENDS_OF_REASONING = (
    "</think>",
    "</thinking>",
    "</thought>",
    "</reasoning>",
    "</analysis>",
    "◁/think▷",
    "<|end_of_thought|>",
)
"""Marks with which models end what they write before an answer."""


def visible(text: str) -> str:
    r"""Return text that a terminal shows and does not obey: control characters as escapes such as ``\x1b``.

    Tabs and line feeds stay.
    """
    return _CONTROLS.sub(lambda found: ascii(found[0])[1:-1], text)


def one_line(text: str) -> str:
    """Return text as one line that a terminal shows and does not obey, without the passwords in its URLs."""
    return visible(_LINE_BREAKS.sub(" ", without_passwords(text.strip())))


def first_line(error: BaseException) -> str:
    """What an error says at first, on one line, or what kind it is."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    first = " ".join(lines[:2]) if lines and lines[0].endswith(":") else "".join(lines[:1])
    return one_line(first)[:250] or type(error).__name__


def without_passwords(text: str) -> str:
    """Return text with ``***`` for the passwords in its URLs: ``//user:PASSWORD@``, ``?password=PASSWORD``."""
    return _SECRETS.sub(r"\1***", _CREDENTIALS.sub(r"\1:***@", text))


def url_without_password(url: str) -> str:
    """Return one URL with ``***`` for its passwords, which may hold any character, spaces and slashes too."""
    return without_passwords(_WHOLE_CREDENTIALS.sub(r"\1:***@", url))


def command_line(words: Iterable[str]) -> str:
    """Return the words of a command as a shell reads them, with ``***`` for passwords in URLs.

    Control characters are written as escapes in ``$'...'``, which bash, zsh and ksh understand.
    """
    return " ".join(_shell_word(url_without_password(word) if _IS_URL.match(word) else word) for word in words)


def _shell_word(word: str) -> str:
    if not _CONTROLS.search(word) and "\n" not in word:
        return shlex.quote(word)
    escaped = word.replace("\\", "\\\\").replace("'", "\\'").replace("\n", "\\n")
    return "$'" + _CONTROLS.sub(lambda found: _shell_escape(found[0]), escaped) + "'"


def _shell_escape(character: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in character.encode(errors="surrogateescape"))


def quoted(value: Any) -> str:
    """Return a value in quotes for a message, cut in its middle where it is long; a path keeps its end."""
    text = repr(url_without_password(str(value)) if isinstance(value, str | Path) else value)
    head, tail = (_LONGEST // 2, _LONGEST) if isinstance(value, Path) else (_LONGEST // 2, _LONGEST // 4)
    return visible(cut_in_its_middle(text, max(_LONGEST, head + tail), head, tail))


def cut_in_its_middle(text: str, longest: int, head: int, tail: int) -> str:
    """Return a text of at most ``longest`` characters as it is, of a longer one so many at its begin and its end."""
    return text if len(text) <= longest else f"{text[:head]}...{text[-tail:]}"


def sqlite_url(path: Path) -> str:
    """Return the database URL of a SQLite file, whatever characters its path has."""
    from sqlalchemy.engine import URL

    return URL.create("sqlite", database=str(path.resolve())).render_as_string()


def json_text(document: Any, **settings: Any) -> str:
    """Return a document as JSON that any file and any terminal takes: control characters are escaped."""
    text = json.dumps(document, ensure_ascii=False, **settings)
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def number_of(number: int, thing: str) -> str:
    """Return how many of a thing there are: ``1 trial``, ``2 trials``."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def did_you_mean(name: str, there: Iterable[str]) -> str:
    """The part of a message that offers the name that is most like a wrong one, after a comma; empty for none."""
    known = {each.lower(): each for each in there}
    close = difflib.get_close_matches(name.lower(), known, n=1)
    return f", did you mean {quoted(known[close[0]])}?" if close else ""


def not_there(what: str, name: str, there: Iterable[str]) -> str:
    """A message that there is no ``what`` called ``name``: the name that is most like it, and those there are."""
    names = list(there)
    return f"unknown {what} {quoted(name)}{did_you_mean(name, names) or ';'} there is {', '.join(names)}"
