"""Output that cannot be written, and signals: real processes."""

import importlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import commands
import pytest
from forked import kvtune_forked
from lost_errors import WHERE_IT_IS_LOST
from study_folders import write_study
from synthetic_studies import random_study

import kvtune
from kvtune.cli.common import terminable
from kvtune.cli.main import root
from kvtune.demo import demo_model_path
from kvtune.study.caption_log import read_captions

KVTUNE = f"{sys.executable} -m kvtune.cli.main"

needs_demo = pytest.mark.skipif(
    not (demo_model_path() / "model.safetensors").exists(), reason="the demo model's weights are not there"
)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return write_study(tmp_path / "studies", random_study(8)).path


def shell(script: str, cwd: Path) -> tuple[int, str, str]:
    """Run a line of bash; KVTUNE in it is the program. A pipe's exit code is that of its first command."""
    script = script.replace("KVTUNE", KVTUNE).replace("END", "exit ${PIPESTATUS[0]}")
    ran = subprocess.run(["bash", "-c", script], cwd=cwd, capture_output=True, text=True, timeout=120)
    assert "Traceback" not in ran.stderr and "Exception ignored" not in ran.stderr
    return ran.returncode, ran.stdout, ran.stderr


ROOT = root()
COMMANDS = [
    words
    for name, command in ROOT.commands.items()
    for words in [[name], *([name, sub] for sub in getattr(command, "commands", {}))]
]
"""Every command by its words, as the program itself has them."""

FULL = "kvtune: the output could not be written to stdout: No space left on device\n"
CLOSED = "kvtune: the output could not be written to stdout: Bad file descriptor\n"


@pytest.mark.parametrize("options", ["studies", "studies --json", "pareto --json", "--help", "--version", "models"])
@pytest.mark.parametrize(("to", "said"), [(">/dev/full", FULL), (">&-", CLOSED)])
def test_results_that_cannot_be_written(study: Path, options: str, to: str, said: str) -> None:
    assert shell(f"KVTUNE {options} {to}", study.parent.parent) == (1, "", said)


@pytest.mark.parametrize("to", [">&- 2>&-", ">/dev/full 2>/dev/full", ">&- 2>&- <&-"])
def test_nobody_to_tell(study: Path, to: str) -> None:
    assert shell(f"KVTUNE studies {to}", study.parent.parent) == (1, "", "")


@pytest.mark.parametrize("to", [pytest.param("2>&-", marks=pytest.mark.slow), "2>/dev/full", "2>&- <&-"])
def test_what_is_said_on_the_side_may_be_lost(study: Path, to: str) -> None:
    code, out, err = shell(f"KVTUNE pareto --out pictures {to}", study.parent.parent)
    assert (code, err) == (0, "") and "chosen" in out
    assert (study.parent.parent / "pictures" / "front.png").stat().st_size > 1000
    assert shell(f"KVTUNE pareto no-such-study {to}", study.parent.parent) == (2, "", "")


@pytest.mark.parametrize("to", [pytest.param(">/dev/full", marks=pytest.mark.slow), ">&-", "| true; END"])
def test_files_are_written_all_the_same(study: Path, to: str) -> None:
    """And none of them holds what was meant for stdout."""
    code, out, _ = shell(f"KVTUNE pareto --html --out files {to}", study.parent.parent)
    assert (code, out) == (1, "")
    files = {path.name: path.read_bytes() for path in (study.parent.parent / "files").iterdir()}
    assert {"front.png", "front.svg", "trials.csv", "pareto.html"} <= files.keys()
    assert files["front.png"].startswith(b"\x89PNG") and files["trials.csv"].startswith(b"study,")


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("option", ["--help", "--no-such-option"])
def test_every_command_where_nothing_can_be_written(path: list[str], option: str) -> None:
    """In a process of its own that is not started anew: all commands are walked in the time that a few starts take."""
    process = kvtune_forked(*path, option, out="/dev/full", err="/dev/full")
    assert process.wait() == (1 if option == "--help" else 2)


def test_a_reader_that_leaves_is_not_spoken_of(study: Path) -> None:
    assert shell("KVTUNE pareto --json | true; END", study.parent.parent) == (1, "", "")


def test_a_result_that_was_refused_stays_refused(study: Path) -> None:
    code, _, err = shell("KVTUNE pareto nothing >/dev/full", study.parent.parent)
    assert code == 2 and err.count("\n") == 1


SEARCH = "search --model demo --images 6 --holdout-images 2 --trials 2 --parallel-trials 2 --max-new-tokens 16"


@pytest.mark.slow
@needs_demo
def test_a_search_that_nobody_hears_loses_nothing(tmp_path: Path) -> None:
    assert shell(f"KVTUNE {SEARCH} >/dev/full 2>&-", tmp_path) == (1, "", "")
    captions = tmp_path / "studies" / "demo-kvsmooth" / "captions"
    assert {path.name: len(read_captions(path)) for path in captions.glob("*.jsonl")} == {
        "baseline.jsonl": 6,
        "trial-0000.jsonl": 6,
        "trial-0001.jsonl": 6,
    }
    assert json.loads(commands.kvtune("studies", "--json", cwd=tmp_path).stdout)[0]["trials"] == {"complete": 2}


@pytest.mark.slow
@needs_demo
def test_ctrl_c_while_the_program_itself_is_imported_ends_it_without_a_word():
    code = """if True:
        import importlib.abc, os, signal, sys
        from kvtune.__main__ import program

        class Pressed(importlib.abc.MetaPathFinder):
            def find_spec(self, name, path, target=None):
                if name == "kvtune.cli.main":
                    os.kill(os.getpid(), signal.SIGINT)

        sys.meta_path.insert(0, Pressed())
        program()
    """
    ended = subprocess.run([sys.executable, "-c", code, "doctor"], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")


def test_the_package_is_the_program_too():
    ended = subprocess.run([sys.executable, "-m", "kvtune", "--version"], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{kvtune.__version__}\n", "")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_ends_a_search_as_ctrl_c_does(tmp_path: Path, number: signal.Signals) -> None:
    words = SEARCH.replace("--trials 2", "--trials 50").split()
    process = kvtune_forked(*words, cwd=tmp_path, err=tmp_path / "said")
    captions = tmp_path / "studies" / "demo-kvsmooth" / "captions"
    while process.poll() is None and len(list(captions.glob("*"))) < 2:
        time.sleep(0.02)
    process.send_signal(number)
    assert process.wait() == 130
    last = (tmp_path / "said").read_text().strip().splitlines()[-1]
    assert last.startswith("stopped; no caption is lost. Go on with: kvtune search --model demo")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
@pytest.mark.parametrize("where", WHERE_IT_IS_LOST)
def test_a_signal_where_python_prints_what_is_raised_and_goes_on(
    where: str, number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    before = sys.unraisablehook, sys.excepthook
    with pytest.raises(KeyboardInterrupt), terminable():
        WHERE_IT_IS_LOST[where](lambda: send(number))
        for _ in range(500):
            time.sleep(0.01)
    assert capfd.readouterr() == ("", "")
    assert (sys.unraisablehook, sys.excepthook) == before


def test_other_errors_there_are_printed(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)  # pytest's says it later
    with terminable():
        for lose in WHERE_IT_IS_LOST.values():
            lose(lambda: 1 / 0)
    assert capfd.readouterr().err.count("ZeroDivisionError") == len(WHERE_IT_IS_LOST)


@pytest.mark.parametrize("name", ["unraisablehook", "excepthook"])
def test_a_hook_that_is_set_meanwhile_stays_and_hands_on(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Ray's, which is there once it is imported."""
    seen: list[Any] = []
    monkeypatch.setattr(sys, name, lambda lost, *more: seen.append(lost))
    with terminable():
        before = getattr(sys, name)
        monkeypatch.setattr(sys, name, meanwhile := lambda *lost: before(*lost))
    assert getattr(sys, name) is meanwhile
    lost = KeyboardInterrupt if name == "excepthook" else SimpleNamespace(exc_type=KeyboardInterrupt)
    meanwhile(lost, None, None) if name == "excepthook" else meanwhile(lost)
    assert seen == [lost]


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0)  # where Python looks for signals


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_amid_an_import_ends_the_command_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """Raised in an extension module's beginning it would end the process; in any module it may be lost."""
    name = f"imported_amid_{number.name}"
    text = f"import os\ntry:\n    os.kill(os.getpid(), {int(number)})\nexcept BaseException:\n    raise SystemExit(9)\n"
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), terminable():
        importlib.import_module(name)
        while True:
            time.sleep(0.01)
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_so_it_does_every_command(tmp_path: Path, number: signal.Signals) -> None:
    """``data download`` waits for a server that does not answer."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        words = [*KVTUNE.split(), "data", "download", "--base-url", url, "--to", str(tmp_path / "coco")]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        server.accept()[0].recv(1)
        process.send_signal(number)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert err == "stopped; the same command goes on from here\n"


@pytest.mark.slow
@needs_demo
def test_under_nohup_a_closed_terminal_is_not_heard(tmp_path: Path) -> None:
    """SIGHUP is ignored there, and a search goes on."""
    process = kvtune_forked(*SEARCH.split(), cwd=tmp_path, ignored=signal.SIGHUP)
    captions = tmp_path / "studies" / "demo-kvsmooth" / "captions"
    while process.poll() is None and not list(captions.glob("*")):
        time.sleep(0.02)
    process.send_signal(signal.SIGHUP)
    assert process.wait() == 0
