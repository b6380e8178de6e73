"""Wrong requests made of the commands' own options: one line, exit code 2, nothing written, never a traceback.

``KVTUNE_WRONG_REQUESTS=5000`` tries so many, others each time.
"""

import contextlib
import functools
import inspect
import io
import os
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from scored_studies import scored_study
from small_coco import write_coco

from kvtune.chair import save_ground_truth
from kvtune.cli.main import main, root

EXAMPLES = int(os.environ.get("KVTUNE_WRONG_REQUESTS", "300"))

BASE = {
    "search": "--model demo --images 2 --holdout-images 2 --trials 1",
    "pareto": "mine",
    "export": "mine",
    "validate": "mine",
    "sensitivity": "mine",
    "reproduce": "table1 --models demo --images 2",
    "rescore": "mine",
    "studies": "",
    "studies delete": "mine",
    "studies rename": "mine better",
    "compare": "mine",
    "tournament": "--model demo --methods kvsmooth,pai --images 2 --holdout-images 2 --trials 1",
    "caption": "picture.jpg --model demo",
    "score": "captions.jsonl --ground-truth truth.json",
    "dashboard": "mine",
    "doctor": "",
    "data subset": "--images 2 --out drawn.json --coco coco",
    "data ground-truth": "--out made.json --coco coco",
    "data download": "--to new",
    "methods": "",
    "models": "",
    "models check": "demo",
    "models convert": "minigpt4 --vicuna coco --eva truth.json --qformer truth.json --checkpoint truth.json",
    "bench engine": "--images 1 --repeats 1",
    "bench score": "--captions 1",
    "bench search": "--seeds 1 --budget 1 --arm random-8",
    "bench cluster": "--workers 2 --trials 1 --images 4",
}
"""What each command is asked for beside what is wrong."""

WRONG = {
    "model": ["", "demmo", "a/b/c", "-", "/", "~nobody-of-this-name/x"],
    "models": ["", "demmo", "demo,demo", ","],
    "studies rename name": ["", "../up", ".", "a/b", "/", "x" * 300],
    "models check name": ["", "demmo", "a/b/c", "coco", "/", "~nobody-of-this-name/x"],
    "study": ["", "../up", "none", "coco", "/", "."],
    "search study": ["", "../up", "/", ".", "a/b", "-x", "x" * 300],
    "studies": ["", "none", "coco"],
    "device": ["", "gpu", "cuda:77", "cpu:x", "meta"],
    "dtype": ["", "-1", "half", "int8", "float16-4bit-8bit", "float32-3bit"],
    "lanes": ["", "0", "-1", "many", "²", "9" * 50],
    "method": ["", "kvsmoth", "all"],
    "bench engine method": ["", "kvsmoth"],
    "subset": ["", "opera5000", "truth.json", "coco"],
    "select": ["", "best", "trial:", "trial:-1", "trial:99", "trial:²", "trial:" + "9" * 5000],
    "storage": ["", "nonsense", "sqlite://", "nothing://h/d", "sqlite:////no/such/folder/x.db"],
    "timeout": ["", "0", "-1h", "soon", "1e400h", "nanm"],
    "min_f1": ["", "high", "baseline-", "nan", "1e999", "baseline-x", "101", "9" * 22],
    "min_words": ["", "many", "nan", "inf", "baseline+x", "9" * 22],
    "start_from": ["", "none", "coco"],
    "preset": ["", "lava", "truth.json", "none.json", "coco"],
    "parameter": ["", "lambda", "target"],
    "overlay": ["", "none.jsonl", "coco", "truth.json"],
    "source": ["", "val2015"],
    "arm": ["", "tpe", "tpe-0", "best-8"],
    "base_url": ["", "nonsense", "ftp://h/", "http://"],
    "trials": ["0", "9" * 22],
    "parallel_trials": ["0", "9" * 22],
    "max_new_tokens": ["0", "9" * 22],
    "points": ["0", "1", "-3", "9" * 22],
    "workers": ["0", "9" * 22],
    "bench cluster workers": ["", "0", "8,", "9" * 9, "8," + "9" * 22, "9" * 5000],
    "race_confidence": ["0", "1", "-0.5", "nan", "inf"],
}
"""Values that mean nothing to an option of this name, or of this command, beside those that are wrong for its type."""

WRITTEN = {"to", "out_dir", "details", "png", "trace"}
"""Options that name what is to be written."""

FREE = {
    ("data download", "to"),
    ("data download", "base_url"),
    ("doctor", "coco"),
    ("doctor", "studies_dir"),
    ("studies", "studies_dir"),
}
"""Options whose values the command finds out about, and does not refuse."""

NUMBERS = st.sampled_from(["", "x", "1.5.2", "--", "0x10", "1 2", "²", "9" * 5000, "nan?", "١x"])
LINE = 120 * 8
"""Characters that a message has at most, long lists of what there is included."""


@dataclass(frozen=True)
class Option:
    """One option or argument of a command, as it was declared."""

    command: str
    name: str
    spelling: str | None
    kind: Any
    low: float | None
    high: float | None
    is_flag: bool


def options() -> Iterator[Option]:
    for command in BASE:
        found: Any = root()
        for word in command.split():
            found = found.commands[word]
        hints = typing.get_type_hints(inspect.unwrap(found.callback), include_extras=True)
        for parameter in found.params:
            kind, declared = typing.get_args(hints[parameter.name])[:2]
            if type(None) in typing.get_args(kind):
                kind = typing.get_args(kind)[0]
            kind = typing.get_args(kind)[0] if typing.get_origin(kind) is list else kind
            spelling = None if parameter.param_type_name == "argument" else max(parameter.opts, key=len)
            yield Option(command, parameter.name, spelling, kind, declared.min, declared.max, kind is bool)


@functools.cache
def wrong_values(option: Option) -> st.SearchStrategy[str]:
    """Values that the option has to refuse."""
    kinds: list[st.SearchStrategy[str]] = []
    if (option.command, option.name) not in FREE:
        kinds.append(st.sampled_from(["\udcff", "name\udc80\udcfe"]) if option.kind in (str, Path) else NUMBERS)
        if option.kind is Path:
            kinds.append(
                st.sampled_from(["captions.jsonl/inside.json", "x" * 300, "captions.jsonl/a/b", "coco/" * 1000])
            )
            if option.name not in WRITTEN and not (
                option.name == "studies_dir" and option.command in ("search", "tournament")
            ):
                kinds.append(st.sampled_from(["none", "none/none.json", "broken.bin"]))
            elif option.name in ("details", "png") or (option.name == "to" and option.command != "models convert"):
                kinds.append(st.sampled_from(["coco", "."]))
        if typing.get_origin(option.kind) is Literal:
            kinds.append(st.text(max_size=8).filter(lambda text: text not in typing.get_args(option.kind)))
        if option.low is not None:
            kinds.append(st.integers(max_value=int(option.low) - 1).map(str))
        if option.high is not None:
            kinds.append(st.integers(min_value=int(option.high) + 1).map(str))
        meaningless = WRONG.get(f"{option.command} {option.name}", WRONG.get(option.name))
        if meaningless:
            kinds.append(st.sampled_from(meaningless))
    return st.one_of(kinds)


OPTIONS = [option for option in options() if (option.command, option.name) not in FREE]


@st.composite
def requests(draw: st.DrawFn) -> list[str]:
    """A command line with one thing wrong."""
    option = draw(st.sampled_from(OPTIONS))
    words = [*option.command.split(), *BASE[option.command].split()]
    wrong = draw(st.sampled_from(["value"] * 8 + ["unknown option", "no value", "more words"]))
    if wrong == "unknown option":
        return [*words, "--" + draw(st.text("abcdefghij-", min_size=3, max_size=9)) + "-zz"]
    if wrong == "more words" and option.command != "compare" and option.command != "caption":
        return [*words, "mine", "mine", draw(st.text(min_size=1, max_size=5).filter(lambda text: text[0] != "-"))]
    if option.is_flag:
        return [*words, f"{option.spelling}={draw(st.sampled_from(['yes', '1', '']))}"]
    if option.spelling is None:
        position = len(option.command.split())
        value = draw(wrong_values(option).filter(lambda text: not text.startswith("-")))
        return [*words[:position], value, *words[position + 1 :]]
    if wrong == "no value":
        return [*words, option.spelling]
    return [*words, f"{option.spelling}={draw(wrong_values(option))}"]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a study, captions, a ground truth, COCO, a picture and a broken file; commands run in it."""
    top = tmp_path_factory.mktemp("wrong")
    scored_study(top / "studies" / "mine", images=6, trials=2)
    write_coco(top / "coco", "val2014", range(1, 9))
    (top / "coco" / "val2014" / "COCO_val2014_000000000002.jpg").rename(top / "picture.jpg")
    (top / "captions.jsonl").write_text('{"image_id": 1, "caption": "A dog."}\n')
    save_ground_truth({1: {"dog"}}, top / "truth.json")
    (top / "broken.bin").write_bytes(b"\x80\x81{[\x00" * 40)
    before = Path.cwd()
    os.chdir(top)
    run(["pareto", "mine", "--json"])  # counts that it keeps for the next time are no result
    yield top
    os.chdir(before)


def contents(folder: Path) -> dict[str, int | None]:
    """Every file and folder but locks, with sizes."""
    found = [path for path in sorted(folder.rglob("*")) if path.name != ".lock"]
    return {str(path): path.stat().st_size if path.is_file() else None for path in found}


def run(words: list[str]) -> tuple[int, str, str]:
    shown, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(error), pytest.raises(SystemExit) as ended:
        main(words)
    return int(ended.value.code or 0), shown.getvalue(), error.getvalue()


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=EXAMPLES <= 300,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(words=requests())
def test_a_wrong_request_is_one_line_and_writes_nothing(words: list[str], world: Path) -> None:
    before = contents(world)
    note(f"kvtune {words}")
    code, shown, error = run(words)
    assert (code, shown) == (2, ""), error[-500:]
    lines = [line for line in error.splitlines() if line.startswith("kvtune: ")]
    assert len(lines) == 1 and error.splitlines()[-1] == lines[0] and len(lines[0]) < LINE, error[-2000:]
    assert contents(world) == before


def test_what_is_asked_for_beside_it_is_right(world: Path) -> None:
    """Of the quick ones: a request is refused for what is wrong in it, not for what stands beside that."""
    for command in ("pareto", "export", "rescore", "studies", "compare", "score", "doctor", "models", "bench score"):
        code, _, error = run([*command.split(), *BASE[command].split(), "--json"])
        assert code == 0 or command == "doctor", f"{command}: {error}"


def test_every_command_is_tried() -> None:
    commands = root().commands
    there = {
        name for name, each in commands.items() if not getattr(each, "commands", {}) or name in ("models", "studies")
    }
    there |= {f"{name} {sub}" for name, each in commands.items() for sub in getattr(each, "commands", {})}
    assert there == BASE.keys()
