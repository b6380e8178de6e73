"""``kvtune doctor``: is this machine ready?"""

from pathlib import Path
from typing import Annotated

import typer

from kvtune.cli import options as opt
from kvtune.cli.common import out, print_json
from kvtune.cli.options import value
from kvtune.text import visible

_STYLES = {"ok": "green", "info": "dim", "warning": "yellow", "failed": "bold red"}


def doctor(
    coco: opt.Coco = None,
    studies_dir: Annotated[Path, value("DIR", "Where searches will write.")] = opt.STUDIES,
    json: opt.Json = False,
) -> None:
    """Check Python, packages, device, memory, folders, COCO and models; exit code 1 if kvtune cannot work here.

    Warnings are about real models and real COCO: the demo needs neither.

    Example: kvtune doctor --coco ~/coco
    """
    from dataclasses import asdict

    from rich.text import Text

    from kvtune.doctor import examine

    checks = []
    for check in examine(coco, studies_dir):
        checks.append(check)
        if not json:
            line = Text.assemble((f"{check.state:8}", _STYLES[check.state]), visible(f"{check.name}: {check.found}"))
            out().say(line)
            if check.cure:
                out().print_line(Text(visible(f"{'':8}-> {check.cure}")))
    failed = sum(check.state == "failed" for check in checks)
    if json:
        print_json({"ok": not failed, "checks": [asdict(check) for check in checks]})
    elif failed:
        out().print("1 check failed" if failed == 1 else f"{failed} checks failed")
    else:
        out().print("ready")
    if failed:
        raise typer.Exit(1)
