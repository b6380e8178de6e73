"""Memory of the machine that is still free: what the system has, or less where a container or a job has a limit."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class HostMemory:
    """Bytes in all, and bytes that may still be allocated; what only caches files counts as free."""

    total: int
    free: int


def host_memory(root: Path = Path("/")) -> HostMemory:
    """What this process may use: the lowest of the system's and of every control group that it is in.

    Parameters
    ----------
    root
        Where ``proc`` and ``sys`` are.

    Raises
    ------
    OSError
        If the system does not say how much there is.
    """
    page = os.sysconf("SC_PAGE_SIZE")
    found = HostMemory(page * os.sysconf("SC_PHYS_PAGES"), page * os.sysconf("SC_AVPHYS_PAGES"))
    facts = _numbers(root / "proc" / "meminfo")
    if "MemAvailable:" in facts:
        found = HostMemory(1024 * facts["MemTotal:"], 1024 * facts["MemAvailable:"])
    for limit, used in _groups(root):
        found = HostMemory(min(found.total, limit), max(0, min(found.free, limit - used)))
    return found


def _groups(root: Path) -> Iterator[tuple[int, int]]:
    """Limit and use of each control group that the process is in and that has a limit, without cached files."""
    try:
        lines = (root / "proc" / "self" / "cgroup").read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, name = line.split(":", 2)
        if controllers == "":
            mount, limit, used, cache = "", "max", "current", "inactive_file"
        elif "memory" in controllers.split(","):  # the first version of control groups
            mount, limit, used, cache = "memory", "limit_in_bytes", "usage_in_bytes", "total_inactive_file"
        else:
            continue
        top = root / "sys" / "fs" / "cgroup" / mount
        group = top / name.lstrip("/")
        for folder in (group, *group.parents):
            try:
                cached = _numbers(folder / "memory.stat").get(cache, 0)
                yield _number(folder / f"memory.{limit}"), _number(folder / f"memory.{used}") - cached
            except (OSError, ValueError):  # "max", or this group is not seen from inside the container
                pass
            if folder == top:
                break


def _number(file: Path) -> int:
    return int(file.read_text())


def _numbers(file: Path) -> dict[str, int]:
    """The numbers of a file of names and numbers; empty where there is none."""
    try:
        words = [line.split() for line in file.read_text().splitlines()]
    except OSError:
        return {}
    return {each[0]: int(each[1]) for each in words if len(each) > 1 and each[1].isdigit()}
