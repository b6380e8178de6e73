"""The program ``kvtune``, ready for Ctrl-C before anything else is imported."""

import signal

from kvtune.interrupts import end_at_once


def program() -> None:
    """Run ``kvtune`` as a process of its own; see :func:`kvtune.cli.main.program`."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, end_at_once)
    from kvtune.cli.main import program as run

    run()


if __name__ == "__main__":
    program()
