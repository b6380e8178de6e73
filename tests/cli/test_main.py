"""The command line as a whole: quick, torch-free help, and one line for whatever is wrong."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from kvtune.cli.main import app, main

ROOT = typer.main.get_command(app)
COMMANDS = {
    path: command
    for name, found in ROOT.commands.items()
    for path, command in {
        (name,): found,
        **{(name, sub): each for sub, each in getattr(found, "commands", {}).items()},
    }.items()
}
"""Every command by its words."""


def kvtune(*arguments, **settings):
    return subprocess.run(
        [sys.executable, "-m", "kvtune.cli.main", *arguments], capture_output=True, text=True, timeout=60, **settings
    )


@pytest.mark.parametrize(
    "module", ["kvtune", "kvtune.cli.main", "kvtune.chair", "kvtune.coco", "kvtune.models.availability"]
)
def test_imports_no_torch(module):
    program = (
        f"import sys, {module}; sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'optuna')))"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0


def test_help_names_every_command():
    help_text = kvtune("--help").stdout
    assert {("search",), ("pareto",), ("reproduce",), ("bench", "engine"), ("models", "convert")} <= COMMANDS.keys()
    for name, *_ in COMMANDS:
        assert name in help_text


RUN = {path: command for path, command in COMMANDS.items() if not getattr(command, "commands", None)}


@pytest.mark.parametrize("path", RUN, ids=" ".join)
def test_every_command_explains_itself_with_an_example_that_parses(path):
    """The examples name no files that must be there, so parsing one tells whether its options exist."""
    command = RUN[path]
    paragraphs = [" ".join(paragraph.split()) for paragraph in command.help.split("\n\n")]
    examples = [
        text.removeprefix("Example: ") for text in paragraphs if text.startswith(("Example: kvtune", "kvtune "))
    ]
    assert examples and "Example" in command.help
    for example in examples:
        words = shlex.split(example)
        assert tuple(words[1 : 1 + len(path)]) == path
        command.make_context(" ".join(path), words[1 + len(path) :])
    for parameter in command.params:
        assert getattr(parameter, "help", None) or parameter.name == "help", f"{parameter.name} has no help"


@pytest.mark.parametrize("path", [("search",), ("data", "subset"), ("bench", "engine")], ids=" ".join)
def test_help_is_printed(path):
    result = kvtune(*path, "--help", env={**os.environ, "COLUMNS": "200"})
    assert result.returncode == 0 and f"kvtune {' '.join(path)}" in result.stdout and "Example" in result.stdout


def test_a_shell_can_ask_for_completions():
    """What Typer's completion script for bash runs at a press of Tab."""
    asked = {"_KVTUNE_COMPLETE": "complete_bash", "COMP_WORDS": "kvtune par", "COMP_CWORD": "1"}
    program = Path(sys.executable).with_name("kvtune")
    if not program.exists():
        pytest.skip("kvtune is not installed as a program")
    result = subprocess.run([program], env={**os.environ, **asked}, capture_output=True, text=True, timeout=60)
    assert result.stdout.split() == ["pareto"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["serch"], "No such command 'serch'"),
        (["search"], "--model"),
        (["search", "--model", "demo", "--trails", "3"], "--trails"),
        (["search", "--model", "demo", "--trials", "many"], "--trials"),
        (["search", "--model", "no-such-model"], "unknown model 'no-such-model'"),
        (["search", "--model", "demo", "--study", "../up"], "../up"),
        (["search", "--model", "demo", "--device", "cuda:77"], "cuda"),
        (["caption", "missing.jpg", "--model", "demo"], "missing.jpg"),
        (["pareto", "no-such-study"], "no-such-study"),
        (["export", "no-such-study", "--out", "x.json"], "no-such-study"),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_code_2(arguments, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    shown, error = capsys.readouterr()
    assert ended.value.code == 2
    assert said in error
    assert len(error.strip().splitlines()) == 1
    assert shown == ""
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_request_ends_the_program_so():
    result = kvtune("search", "--model", "demo", "--study", "../up")
    assert (result.returncode, result.stdout, len(result.stderr.strip().splitlines())) == (2, "", 1)
