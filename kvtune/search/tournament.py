"""``kvtune tournament``: an ordinary study for each of several methods, on the same images with the same budget."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from kvtune.analysis.contest import Contest, contest
from kvtune.analysis.validate import validate
from kvtune.errors import RequestError
from kvtune.search.session import Options, check_options, search
from kvtune.search.view import View
from kvtune.spaces import SearchSpace, space_for
from kvtune.study.captioning import OnProgress
from kvtune.study.manifest import load_manifest
from kvtune.study.shared_baseline import take_baseline
from kvtune.study.study_folder import StudyFolder, default_name

if TYPE_CHECKING:
    from kvtune.models.model_facts import AnyModel

ALL = "all"
"""What ``--methods`` takes for every method that there is."""


@dataclass(frozen=True)
class Tournament:
    """What was found; ``left_out`` has why, by method, of those that cannot serve the model, and ``seconds`` what this
    call spent on each study."""

    found: Contest
    left_out: dict[str, str]
    seconds: dict[str, float]


def tournament(
    options: Options,
    methods: str,
    name: str | None,
    view: Callable[[], View],
    progress: Callable[[], AbstractContextManager[OnProgress]],
) -> Tournament:
    """Search each method's study to its end, validate it on held-out images, and compare the chosen points.

    The studies run one after another through one captioner; what the baseline says is written by the first and taken
    over by the others. The same call goes on where the last one stopped, and each study is one that ``kvtune search``
    with the same options would have made.

    Parameters
    ----------
    options
        As for a search; its method and study are set for each.
    methods
        Names with commas between, stacks too, or :data:`ALL`, which leaves out methods that cannot serve the model.
    name
        What the studies' names begin with; the model's when None.
    view, progress
        Show each search, and held-out captions.

    Raises
    ------
    RequestError
        If something asked for is wrong, or a method that was named cannot serve the model; nothing long was done.
    KvtuneError
        If it fails midway; the same call goes on from there.
    """
    names = _names(methods)
    searches = {
        method: replace(options, method=method, study=default_name(name or options.model.name, method))
        for method in names
    }
    folders = {method: check_options(each) for method, each in searches.items()}
    from kvtune.captioning import open_captioner

    captioner = open_captioner(options.model, options.prompt, options.max_new_tokens)
    left_out: dict[str, str] = {}
    for method in names:
        try:
            for sample in _space(folders[method], method, captioner.vlm).samples():
                captioner.check(sample)
        except RequestError as error:
            if methods != ALL:
                raise
            left_out[method] = str(error)
    able = [method for method in names if method not in left_out]
    if not able:
        raise RequestError(f"no method can serve {options.model.name}")
    seconds = {}
    first = folders[able[0]]
    for method in able:
        begun = time.monotonic()
        shown = view()
        shown.note(f"{method}, {able.index(method) + 1} of {len(able)} methods")
        search(searches[method], shown, captioner=captioner, baseline_of=None if folders[method] == first else first)
        take_baseline(folders[method], load_manifest(folders[method]), first, load_manifest(first))
        with progress() as on_progress:
            validate(folders[method], options.coco, options.model.engine, on_progress)
        seconds[method] = time.monotonic() - begun
    return Tournament(contest([folders[method] for method in able]), left_out, seconds)


def _names(methods: str) -> list[str]:
    from kvtune.methods import get_method, method_names

    if methods == ALL:
        return method_names()
    names = [name.strip() for name in methods.split(",") if name.strip()]
    for name in names:
        get_method(name)
    if len(names) < 2:
        raise RequestError("--methods takes two or more names with commas between, or all")
    if len(set(names)) < len(names):
        raise RequestError("--methods has a method twice")
    return names


def _space(folder: StudyFolder, method: str, vlm: "AnyModel") -> SearchSpace:
    """The space of a study that was begun, perhaps with one of its own, else the one that a search takes."""
    if folder.exists():
        return load_manifest(folder).fingerprint.space
    return space_for(method, (vlm.name, vlm.family.name), vlm.n_layers).fitted(vlm.n_layers)
