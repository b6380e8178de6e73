"""Is this machine ready? Each check says what it found, and what to do where that is not enough."""

import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from kvtune.files import cache_folder
from kvtune.host_memory import host_memory
from kvtune.study.study_folder import DEFAULT_STUDIES
from kvtune.text import command_line, first_line, number_of

DEMO_MEMORY = 2 * 2**30

State = Literal["ok", "info", "warning", "failed"]


@dataclass(frozen=True)
class Check:
    """One finding.

    Attributes
    ----------
    name
        What was looked at.
    state
        ``failed``: kvtune does not work; ``warning``: part of it does not, the demo does; ``info``: nothing to do.
    found
        What was found.
    cure
        What to do; empty where nothing is to be done.
    """

    name: str
    state: State
    found: str
    cure: str = ""


def examine(coco: Path | None = None, studies: Path = DEFAULT_STUDIES) -> Iterator[Check]:
    """Run all checks, one after the other.

    Parameters
    ----------
    coco
        COCO folder; None for where it is looked for.
    studies
        Folder that searches write to.
    """
    installed = check_installed()
    yield installed
    if installed.state == "ok":
        yield check_python()
        yield from check_packages()
        yield from check_extras()
    yield from check_torch()
    yield check_memory()
    yield check_folder("studies", studies, "--studies-dir")
    yield check_folder("cache", cache_folder(), "$KVTUNE_CACHE")
    yield check_coco(coco)
    yield from check_models()


def check_installed() -> Check:
    """Whether kvtune is installed; where it is not, what it needs is not known."""
    source = Path(__file__).resolve().parent.parent
    try:
        return Check("kvtune", "ok", importlib.metadata.version("kvtune"))
    except importlib.metadata.PackageNotFoundError:
        cure = command_line(["pip", "install", "-e", str(source)])
        return Check("kvtune", "failed", f"is run from {source} and not installed", cure)


def check_python() -> Check:
    wanted = importlib.metadata.metadata("kvtune")["Requires-Python"]
    found = f"{platform.python_version()} ({sys.executable})"
    if SpecifierSet(wanted).contains(platform.python_version(), prereleases=True):
        return Check("Python", "ok", found)
    return Check("Python", "failed", f"{found}, needed is {wanted}", f"make an environment with Python {wanted}")


def check_packages() -> Iterator[Check]:
    for requirement in _requirements(extra=None):
        problem = _problem(requirement)
        if problem:
            yield Check(requirement.name, "failed", problem, f"pip install '{requirement.name}{requirement.specifier}'")
        else:
            yield Check(requirement.name, "ok", importlib.metadata.version(requirement.name))


def check_extras() -> Iterator[Check]:
    for extra in importlib.metadata.metadata("kvtune").get_all("Provides-Extra") or []:
        missing = [requirement.name for requirement in _requirements(extra) if _problem(requirement)]
        name = f"extra {extra}"
        if missing:
            yield Check(name, "info", f"not installed: {', '.join(missing)}", f"pip install 'kvtune[{extra}]'")
        else:
            yield Check(name, "ok", "installed")


def _requirements(extra: str | None) -> list[Requirement]:
    """Requirements of kvtune itself, or those that an extra adds."""
    requirements = [Requirement(line) for line in importlib.metadata.requires("kvtune") or []]
    if extra is None:
        return [each for each in requirements if each.marker is None or each.marker.evaluate({"extra": ""})]
    return [
        each
        for each in requirements
        if each.marker is not None
        and each.marker.evaluate({"extra": extra})
        and not each.marker.evaluate({"extra": ""})
    ]


def _problem(requirement: Requirement) -> str | None:
    try:
        version = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
    if requirement.specifier.contains(version, prereleases=True):
        return None
    return f"{version}, needed is {requirement.specifier}"


def check_torch() -> Iterator[Check]:
    try:
        import torch
    except Exception as error:  # a broken installation fails in many ways: missing libraries, wrong architecture
        yield Check("device", "failed", f"torch cannot be imported: {_line(error)}", "install torch anew (pytorch.org)")
        return
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            yield check_gpu(index)
        yield check_kernels()
        return
    cores = f"CPU, {number_of(torch.get_num_threads(), 'thread')}"
    if shutil.which("nvidia-smi"):
        from kvtune.device_errors import cure_for

        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        found = f"{cores}; there is an NVIDIA driver, but torch {torch.__version__} ({built}) sees no GPU"
        cure = "install the torch build for your driver's CUDA version (pytorch.org, Get Started), or update the driver"
        try:
            torch.cuda.init()
        except Exception as error:  # says what torch.cuda.is_available() keeps to itself
            found += f": {first_line(error)}"
            cure = cure_for(error) or cure
        if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
            found += f", with CUDA_VISIBLE_DEVICES={visible}"
            cure = f"unset CUDA_VISIBLE_DEVICES, or let it name a GPU that nvidia-smi -L lists; else {cure}"
        yield Check("device", "warning", found, cure)
    else:
        yield Check("device", "ok", f"{cores}, no NVIDIA GPU: enough for the demo, slow for real models")


def check_gpu(index: int) -> Check:
    """Whether a GPU that torch sees computes."""
    import torch

    from kvtune.device_errors import BUILD, cure_for, is_out_of_memory

    device, name = f"device cuda:{index}", "a GPU"
    try:
        name = torch.cuda.get_device_name(index)
        torch.ones(1, device=f"cuda:{index}").add(1).item()
        free, total = torch.cuda.mem_get_info(index)
    except Exception as error:  # as a rule a RuntimeError; others where CUDA does not start
        full = "other processes have all of its memory (nvidia-smi names them): end one, or use another GPU"
        cure = full if is_out_of_memory(error) else cure_for(error) or BUILD
        return Check(device, "warning", f"{name} does not compute: {first_line(error)}", cure)
    return Check(device, "ok", f"{name}, {_gib(free)} of {_gib(total)} free")


def check_kernels() -> Check:
    """Whether the engine's kernels can be built for a GPU."""
    from kvtune.kernel_builds import missing_for_builds

    missing = missing_for_builds()
    if missing:
        what, cure = missing
        return Check("kernels", "warning", f"{what}: attention in plain torch, several times slower", cure)
    return Check("kernels", "ok", f"Triton {importlib.metadata.version('triton')}, a C compiler, Python's headers")


def check_memory() -> Check:
    try:
        memory = host_memory()
    except (OSError, ValueError):
        return Check("memory", "info", "this system does not say how much is free")
    found = f"{_gib(memory.free)} of {_gib(memory.total)} free"
    if memory.free < DEMO_MEMORY:
        cure = f"close other programs: a search on the demo needs about {_gib(DEMO_MEMORY)}"
        return Check("memory", "warning", found, cure)
    return Check("memory", "ok", found)


def check_folder(name: str, folder: Path, option: str) -> Check:
    """Whether a file can be written to a folder, or to where the folder would be made; makes no folder."""
    place = folder = folder.absolute()
    try:
        while not place.exists():
            place = place.parent
        with tempfile.NamedTemporaryFile(dir=place, prefix=".kvtune-doctor-") as file:
            file.write(b"\0" * 4096)
            file.flush()
        free = shutil.disk_usage(place).free
    except OSError as error:
        cure = f"make it writable, free some space, or choose another folder with {option}"
        return Check(f"folder {name}", "failed", f"{folder} cannot be written: {error.strerror or error}", cure)
    return Check(f"folder {name}", "ok", f"{folder}, {_gib(free)} free")


def check_coco(path: Path | None) -> Check:
    from kvtune.coco import OPERA500, CocoFolder, Subset, default_coco
    from kvtune.coco.layout import KINDS, annotation_name, download_command, find_any_image, has_annotations
    from kvtune.errors import RequestError, cure_apart

    try:
        path = path or default_coco()
        folder = CocoFolder(path)
    except RequestError as error:
        found, cure = cure_apart(error, path)
        return Check("COCO", "warning", found, cure or "see kvtune data download --help")
    lacking = [
        annotation_name(kind, source)
        for source in folder.sources
        for kind in KINDS
        if not has_annotations(folder.root, kind, source)
    ]
    if lacking:
        cure = download_command(folder.root, f"--source {folder.sources[0]}")
        return Check("COCO", "warning", f"{folder.root}: missing or cut off: {', '.join(lacking)}", cure)
    reporting = Subset.load(OPERA500).image_ids
    here = sum(find_any_image(folder.root, image_id) is not None for image_id in reporting)
    found = (
        f"{folder.root}: annotations of {', '.join(folder.sources)}; {here} of {len(reporting)} images of {OPERA500}"
    )
    if here < len(reporting):
        return Check("COCO", "info", found, download_command(folder.root, f"--subset {OPERA500}"))
    return Check("COCO", "ok", found)


def check_models() -> Iterator[Check]:
    try:
        from kvtune.models.availability import presences
        from kvtune.models.hub import models_folder
    except Exception as error:  # as for torch
        yield Check("models", "failed", f"transformers cannot be imported: {_line(error)}", "install transformers anew")
        return
    demo, *others = presences()
    if demo.state == "here":
        yield Check("model demo", "ok", str(demo.path))
    else:
        yield Check("model demo", "failed", f"{demo.path}: {demo.problem}", "install kvtune anew")
    for each in others:
        if each.state == "incomplete":
            cure = f"{each.command}, or copy what is missing there"
            yield Check(f"model {each.name}", "warning", f"{each.path}: {each.problem}", cure)
    here = [f"{each.name} ({each.path})" for each in others if each.state == "here"]
    if here:
        yield Check("models", "ok", ", ".join(here))
    else:
        cure = "see kvtune models for the command that gets each"
        yield Check("models", "warning", f"none but the demo, neither in {models_folder()} nor in the Hub cache", cure)


def _line(error: Exception) -> str:
    return " ".join(str(error).split())


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
