"""Model families by what was checked of each, from the outcomes of their tests."""

import re
from collections import defaultdict

NAMES = ("llava-1.5", "llava-next", "qwen2.5-vl", "qwen3-vl", "instructblip", "minigpt4", "internvl", "llava_onevision")
NAMES += ("gemma3", "smolvlm", "idefics3", "paligemma", "mistral3", "glm4v", "demo")
TEST = re.compile(
    r"tests/models/test_(?:families|newer_families|methods_of_families|end_to_end)\.py::test_(\w+)\[(?:.*-)??"
    rf"({'|'.join(map(re.escape, NAMES))})(?:-.*)?\]"
)


def family_table(stats) -> list[str]:
    """Lines of a table: a row a family, a numbered column a check, with how many cases passed of all; none if none ran.

    Below it are the methods that families refused, by the ``refused`` property of tests, and why.

    ``stats`` maps outcomes to test reports, as pytest's terminal reporter keeps them.
    """
    cells: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    refused: dict[tuple[str, str], list[str]] = defaultdict(list)
    for outcome in ("passed", "failed", "error"):
        for report in stats.get(outcome, ()):
            match = TEST.fullmatch(report.nodeid)
            if match and (report.when == "call" or outcome == "error"):
                cells[match[2]][match[1].replace("_", " ")].append(outcome == "passed")
                for method, why in dict(report.user_properties).get("refused", {}).items():
                    refused[match[2], why.removeprefix(f"{method} ")].append(method)
    checks = list(dict.fromkeys(check for row in cells.values() for check in row))
    if not checks:
        return []
    lines = [f"{number:>3}  {check}" for number, check in enumerate(checks, 1)]
    width = max(map(len, cells))
    lines += ["", " " * width + "".join(f"{number:>6}" for number in range(1, len(checks) + 1))]
    for family, row in sorted(cells.items()):
        marks = [f"{sum(row[check])}/{len(row[check])}" if row[check] else "-" for check in checks]
        lines.append(family.ljust(width) + "".join(mark.rjust(6) for mark in marks))
    if refused:
        lines += ["", "refused:"]
    for (family, why), methods in sorted(refused.items()):
        lines.append(f"{family}: {', '.join(methods)} {why}")
    return lines
