"""Model families by what was checked of each, from the outcomes of their tests."""

import re
from collections import defaultdict

TEST = re.compile(
    r"tests/models/test_(?:families|end_to_end)\.py::test_(\w+)\[(?:.*-)??(llava-1\.5|llava-next|qwen2\.5-vl|qwen3-vl|instructblip|minigpt4)(?:-.*)?\]"
)


def family_table(stats) -> list[str]:
    """Lines of a table: a row a check, a column a family, with how many cases passed of all; none if none ran.

    ``stats`` maps outcomes to test reports, as pytest's terminal reporter keeps them.
    """
    cells: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for outcome in ("passed", "failed", "error"):
        for report in stats.get(outcome, ()):
            match = TEST.fullmatch(report.nodeid)
            if match and (report.when == "call" or outcome == "error"):
                cells[match[1].replace("_", " ")][match[2]].append(outcome == "passed")
    families = sorted({family for row in cells.values() for family in row})
    if not families:
        return []
    width = max(map(len, cells))
    lines = [" " * width + "  " + "  ".join(families)]
    for check, row in cells.items():
        marks = [f"{sum(row[family])}/{len(row[family])}".center(len(family)) for family in families]
        lines.append(check.ljust(width) + "  " + "  ".join(marks))
    return [line.rstrip() for line in lines]
