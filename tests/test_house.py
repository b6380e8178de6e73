"""The house: imports run down only, no two files need each other, a file's name says which it is; so do the tests."""

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

TESTS = Path(__file__).resolve().parent
PACKAGE = TESTS.parent / "kvtune"

FLOORS = (
    (
        "errors",
        "device_errors",
        "array_files",
        "locks",
        "files",
        "json_files",
        "schema",
        "text",
        "console",
        "host_memory",
        "kernel_builds",
        "interrupts",
        "package_versions",
    ),
    ("hf",),
    ("methods",),
    ("spaces",),
    ("demo",),
    ("models",),
    ("chair",),
    ("statistics",),
    ("presets",),
    ("coco",),
    ("captioning",),
    ("study",),
    ("apply",),
    ("analysis",),
    ("search",),
    ("reproduce",),
    ("bench",),
    ("report",),
    ("api",),
    ("doctor",),
    ("cli",),
    ("__main__",),
)
"""Modules and packages from the lowest to the highest; each may import what stands before it."""

FLOOR = {name: number for number, names in enumerate(FLOORS) for name in names}


def modules() -> dict[str, Path]:
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imported(module: str) -> set[str]:
    """The files of kvtune that a file imports anywhere in it, for the type checker alone too."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} has a relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in MODULES else node.module or "")
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {name for name in found if name in MODULES} - {module}


IMPORTS = {module: imported(module) for module in MODULES}
IMPORTS["kvtune"] = set()  # loads what it offers when it is asked for; the rest of it is a version


def floor(module: str) -> int:
    """Where a file stands; ``kvtune`` itself, which loads what it offers when it is asked for, below all."""
    return -1 if module == "kvtune" else FLOOR.get(module.split(".")[1], len(FLOORS))


def circles() -> Iterator[frozenset[str]]:
    """Sets of files that need each other, straight or by way of others (Tarjan's strongly connected components)."""
    sys.setrecursionlimit(max(sys.getrecursionlimit(), 10 * len(MODULES)))
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    path: list[str] = []

    def visit(module: str) -> Iterator[frozenset[str]]:
        index[module] = low[module] = len(index)
        path.append(module)
        for other in sorted(IMPORTS[module]):
            if other not in index:
                yield from visit(other)
            if other in path:
                low[module] = min(low[module], low[other])
        if low[module] == index[module]:
            together = path[path.index(module) :]
            del path[path.index(module) :]
            if len(together) > 1:
                yield frozenset(together)

    for module in sorted(MODULES):
        if module not in index:
            yield from visit(module)


def test_every_package_has_its_floor() -> None:
    assert {module.split(".")[1] for module in MODULES if "." in module} == set(FLOOR)


def test_imports_run_down() -> None:
    up = [
        f"{module} -> {other}"
        for module in sorted(IMPORTS.keys() - {"kvtune"})
        for other in sorted(IMPORTS[module])
        if floor(other) > floor(module)
    ]
    assert up == []


def test_no_circles() -> None:
    assert list(circles()) == []


def test_no_file_name_stands_for_two_things() -> None:
    """A command, its view and its picture have the name of what they show; so have the benches' files."""
    counted = Counter(
        path.name
        for module, path in MODULES.items()
        if path.name != "__init__.py" and module.split(".")[1] not in ("cli", "report", "bench")
    )
    assert {name for name, times in counted.items() if times > 1} == set()


def test_no_test_imports_from_another() -> None:
    """What tests share is in tests/support and in each folder's conftest."""
    names = {path.stem for path in TESTS.rglob("test_*.py")}
    imports = {
        f"{path.relative_to(TESTS)}: {line}"
        for path in TESTS.rglob("*.py")
        for line in re.findall(r"^\s*(?:from|import) .*", path.read_text("utf-8"), re.MULTILINE)
        if not names.isdisjoint(re.findall(r"\w+", line))
    }
    assert imports == set()


def test_no_two_test_files_have_one_name() -> None:
    """pytest imports tests and what they share by their names alone, and would take one for the other."""
    counted = Counter(path.name for path in TESTS.rglob("*.py") if path.name != "conftest.py")
    assert {name for name, times in counted.items() if times > 1} == set()


REACHES = 44
"""Where tests take hold of a private name of kvtune: kernels, a captured step's parts, places to break something at."""


def test_tests_reach_into_fewer_private_names() -> None:
    """What a test needs is better public; this number may only fall."""
    private = set()
    for path in MODULES.values():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                private.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                private.add(node.id)
            elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                private.update([node.attr] if getattr(node.value, "id", "") == "self" else [])
    reach = re.compile(r"(?<!self)\.(_[A-Za-z]\w*)|import .*?\b(_[A-Za-z]\w*)|[\"'](_[A-Za-z]\w*)[\"']")
    reached = [
        f"{path.relative_to(TESTS)}: {name}"
        for path in sorted(TESTS.rglob("*.py"))
        for names in reach.findall(path.read_text("utf-8"))
        if (name := "".join(names)) in private and name.startswith("_")
    ]
    assert len(reached) <= REACHES, "\n".join(reached)
