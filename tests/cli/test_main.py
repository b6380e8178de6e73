"""The command line as a whole: quick, torch-free help, and one line for whatever is wrong."""

import os
import subprocess
import sys

import pytest

COMMANDS = ["search", "pareto", "export", "rescore", "studies", "compare", "dashboard", "doctor", "caption", "score"]
GROUPS = {"data": ["subset", "ground-truth", "download"], "models": ["check", "convert"], "bench": ["engine", "score"]}


def kvtune(*arguments, **settings):
    return subprocess.run(
        [sys.executable, "-m", "kvtune.cli.main", *arguments], capture_output=True, text=True, timeout=60, **settings
    )


@pytest.mark.parametrize("module", ["kvtune", "kvtune.cli.main", "kvtune.chair", "kvtune.coco"])
def test_imports_no_torch(module):
    program = (
        f"import sys, {module}; sys.exit(any(name in sys.modules for name in ('torch', 'transformers', 'optuna')))"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0


def test_help_names_every_command():
    help_text = kvtune("--help").stdout
    for command in [*COMMANDS, *GROUPS]:
        assert command in help_text


@pytest.mark.parametrize(
    "command", [[c] for c in COMMANDS] + [[g, c] for g, cs in GROUPS.items() for c in cs], ids=" ".join
)
def test_every_command_explains_itself_with_an_example(command):
    result = kvtune(*command, "--help", env={**os.environ, "COLUMNS": "200"})
    assert result.returncode == 0
    assert f"kvtune {' '.join(command)}" in result.stdout
    assert "Example" in result.stdout


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
        (["pareto", "no-such-study"], "no-such-study"),
        (["export", "no-such-study", "--out", "x.json"], "no-such-study"),
    ],
)
def test_a_wrong_request_is_one_line_and_exit_code_2(arguments, said, tmp_path):
    result = kvtune(*arguments, cwd=tmp_path)
    assert result.returncode == 2
    assert said in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []
