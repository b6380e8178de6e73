"""The command line as a whole: quick, torch-free help, and one line for whatever is wrong."""

import logging
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from kvtune.cli import common
from kvtune.cli.main import app, main
from kvtune.console import PlainConsole

ROOT = typer.main.get_command(app)
COMMANDS = {
    path: command
    for name, found in ROOT.commands.items()
    for path, command in {
        (name,): found,
        **{(name, sub): each for sub, each in getattr(found, "commands", {}).items()},
    }.items()
}
"""Every command by its words; made here, for a context without the program above it changes what a command says."""


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


@pytest.fixture
def run(capsys, monkeypatch, tmp_path):
    """A command in this process, in an empty folder: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*words):
        with pytest.raises(SystemExit) as ended:
            main(words)
        return ended.value.code or 0, *capsys.readouterr()

    return run


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_help_fits_80_columns_and_names_no_python_types(path, run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    code, shown, error = run(*path, "--help")
    assert (code, error) == (0, "") and f"Usage: kvtune {' '.join(path)} " in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert not re.search("<(str|int|path|bool|list)|None|INTEGER|x>=|<=x", shown)
    for option in ("-q, --quiet", "-v, --verbose", "--debug", "-h, --help"):
        assert f"\n  {option} " in shown


def test_help_of_search_is_by_subject(run):
    shown = run("search", "--help")[1]
    headings = re.findall(r"^(\w.*):$", shown, flags=re.M)
    assert headings == ["Model", "Trials", "Files", "Images", "Racing and floors", "Options"]
    assert "--trials N" in shown and "[default: 50]" in shown and "[required]" in shown


@pytest.mark.parametrize("group", [(), ("data",), ("bench",)], ids=" ".join)
def test_a_bare_group_prints_its_help_alone(group, run):
    code, shown, error = run(*group)
    assert (code, error) == (2, "") and shown == run(*group, "--help")[1]


@pytest.mark.parametrize(
    "words", ["-q studies", "studies -q", "studies --json -q", "-qv studies", "--debug studies -vq"]
)
def test_how_much_is_said_is_asked_before_or_after_the_command(words, run):
    def logger_after(*words):
        run(*words)
        return logging.getLogger("kvtune").level

    assert logger_after(*words.split()) == logging.WARNING
    assert logger_after("studies", "-v") == logger_after("-v", "studies") == logging.DEBUG
    assert logger_after("studies") == logging.INFO


def test_what_several_cards_or_captioners_say_is_said_once(run, capsys):
    for _ in range(2):  # by each command
        run("studies")
        for card in (0, 1):
            logging.getLogger("kvtune.captioning").warning("%s is not fused", "rms_norm")
            logging.getLogger("kvtune").info("decoding 1 image")
            logging.getLogger("kvtune").info("card %d is ready", card)
        said = "rms_norm is not fused\ndecoding 1 image\ncard 0 is ready\ncard 1 is ready\n"
        assert capsys.readouterr().err == said


def test_a_plan_that_comes_back_is_said_again(run, capsys):
    run("studies")
    for rows in (96, 96, 64, 96):
        logging.getLogger("kvtune").info("decoding %d captions at once", rows)
    assert capsys.readouterr().err == "".join(f"decoding {rows} captions at once\n" for rows in (96, 64, 96))


@pytest.mark.parametrize("quiet", [False, True])
def test_what_is_said_on_a_terminal_has_whole_words(quiet, run, capsys, monkeypatch):
    run("studies", *(["-q"] if quiet else []))
    console = PlainConsole(stderr=True, force_terminal=True, width=20, color_system=None, quiet=quiet)
    monkeypatch.setattr(common, "err", lambda: console)
    logging.getLogger("kvtune").warning("at most 12 MiB, prompts 30 MiB")
    said = "at most 12 MiB, prompts 30 MiB\n" if quiet else "at most 12 MiB, \nprompts 30 MiB\n"
    assert capsys.readouterr().err == said


def test_debug_shows_the_traceback_wherever_it_stands(run):
    for words in (["pareto", "none", "--debug"], ["--debug", "pareto", "none"]):
        code, _, error = run(*words)
        assert code == 2 and error.startswith("Traceback") and error.splitlines()[-1].startswith("kvtune: ")
    assert "Traceback" not in run("pareto", "none")[2]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("kvtune par", {"pareto"}),
        ("kvtune search --model llava-1", {"llava-1.5", "llava-1.5-13b"}),
        ("kvtune models check mini", {"minigpt4"}),
        ("kvtune caption --preset inst", {"instructblip"}),
        ("kvtune search --method kvs", {"kvsmooth"}),
        ("kvtune search --subset op", {"opera500"}),
        ("kvtune export --select k", {"keep-f1", "knee"}),
        ("kvtune pareto mi", {"mine"}),
        ("kvtune search --from mi", {"mine"}),
        ("kvtune pareto --studies-dir other th", {"theirs"}),
    ],
)
def test_a_shell_can_complete_names(words, names, run, monkeypatch, capsys):
    """What Typer's completion script for bash runs at a press of Tab."""
    for study in ("studies/mine", "other/theirs"):
        Path(study).mkdir(parents=True)
        Path(study, "study.json").touch()
    asked = {"_KVTUNE_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    for name, value in asked.items():
        monkeypatch.setenv(name, value)
    code, shown, error = run()
    assert (code, error) == (0, "") and set(shown.split()) == names


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


def test_a_path_may_begin_with_the_home_folder(run, tmp_path, monkeypatch):
    """Of ``--out=~/file`` a shell leaves the ``~`` in."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "captions.jsonl").write_text('{"image_id": 1, "caption": "A dog."}\n')
    (tmp_path / "truth.json").write_text('{"1": ["dog"]}')
    run("score", "~/captions.jsonl", "--ground-truth=~/truth.json", "--details=~/details.jsonl")
    assert (tmp_path / "details.jsonl").is_file() and not (tmp_path / "~").exists()
    assert str(tmp_path / "none") in run("studies", "--studies-dir=~/none")[1]
