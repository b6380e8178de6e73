"""What tests of every package share."""

import atexit
import gc
import os
import signal
from pathlib import Path

import pytest
from family_table import family_table
from hypothesis import settings

REPOSITORY = Path(__file__).resolve().parent.parent

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two workers on two cores; a test's models are small
gc.disable()  # until all modules are imported
# Taking apart what was imported takes seconds: a worker does without. Elsewhere bindings would say what they leak.
atexit.register(*((os._exit, 0) if "PYTEST_XDIST_WORKER" in os.environ else (gc.unfreeze,)))

settings.register_profile("kvtune", deadline=None)  # no test is failed by the clock
settings.load_profile("kvtune")


def pytest_configure() -> None:
    """Let this process and those that tests start hear signals that a shell in the background, or nohup, ignores."""
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, handler)


def pytest_collection_finish() -> None:
    """Look for garbage from here on, and not among what was imported, which takes seconds each time."""
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real COCO data and captions beside the repository; the test is skipped where it is missing."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"real data is not there: {folder}")
    return folder


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which model family passed which checks."""
    if lines := family_table(terminalreporter.stats):
        terminalreporter.section("model families by checks")
        terminalreporter.write_line("\n".join(lines))
