"""Free memory: the lowest of the system's and of the limits that the process is under."""

from pathlib import Path

import pytest

from kvtune import doctor
from kvtune.host_memory import HostMemory, host_memory

GIB = 2**30


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write(tmp_path / "proc/meminfo", f"MemTotal: {64 * 2**20} kB\nMemFree: 1 kB\nMemAvailable: {48 * 2**20} kB\n")
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def group(folder: Path, limit: int | str, used: int, cached: int = 0) -> None:
    write(folder / "memory.max", f"{limit}\n")
    write(folder / "memory.current", f"{used}\n")
    write(folder / "memory.stat", f"anon 5\ninactive_file {cached}\n")


def test_of_a_machine_without_limits(root: Path) -> None:
    assert host_memory(root) == HostMemory(64 * GIB, 48 * GIB)
    write(root / "proc/self/cgroup", "0::/\n")
    group(root / "sys/fs/cgroup", "max", GIB)
    assert host_memory(root) == HostMemory(64 * GIB, 48 * GIB)


def test_of_a_container(root: Path) -> None:
    """Its limit less what it holds; files that are only cached do not count."""
    write(root / "proc/self/cgroup", "0::/\n")
    group(root / "sys/fs/cgroup", 8 * GIB, 5 * GIB, cached=2 * GIB)
    assert host_memory(root) == HostMemory(8 * GIB, 5 * GIB)


def test_of_a_job_within_a_slice(root: Path) -> None:
    """Every group above counts, as on a cluster where the job's own has no limit."""
    write(root / "proc/self/cgroup", "0::/slurm/job_7/step_0\n")
    group(root / "sys/fs/cgroup/slurm/job_7/step_0", "max", GIB)
    group(root / "sys/fs/cgroup/slurm/job_7", 16 * GIB, 4 * GIB)
    group(root / "sys/fs/cgroup/slurm", 32 * GIB, 31 * GIB)
    assert host_memory(root) == HostMemory(16 * GIB, GIB)


def test_of_a_container_of_the_first_version(root: Path) -> None:
    write(root / "proc/self/cgroup", "9:cpu,cpuacct:/a\n4:memory:/docker/abc\n0::/\n")
    top = root / "sys/fs/cgroup/memory"
    for name, value in (("limit_in_bytes", 4 * GIB), ("usage_in_bytes", 5 * GIB)):
        write(top / f"memory.{name}", f"{value}\n")
    write(top / "memory.stat", f"total_inactive_file {GIB // 2}\n")
    assert host_memory(root) == HostMemory(4 * GIB, 0)


def test_doctor_and_the_engine_go_by_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from kvtune.captioning import memory

    for module in (doctor, memory):
        monkeypatch.setattr(module, "host_memory", lambda: HostMemory(8 * GIB, 3 * GIB))
    assert doctor.check_memory().found == "3.0 GiB of 8.0 GiB free"
    assert memory.free_memory(torch.device("cpu")) == 3 * GIB
