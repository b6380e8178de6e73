"""``kvtune tournament``: an ordinary study for each of several methods, on the same images with the same budget."""

import time
from collections.abc import Callable, Hashable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from kvtune.analysis.contest import Contest, contest
from kvtune.analysis.validate import validating
from kvtune.errors import RequestError
from kvtune.methods import ALL, listed_methods
from kvtune.search.begin import usual_space
from kvtune.search.search_options import SearchOptions, check_options
from kvtune.search.session import searching
from kvtune.search.view import OneOfMany
from kvtune.spaces import SearchSpace
from kvtune.study.captioning import OnProgress
from kvtune.study.manifest import load_manifest
from kvtune.study.pace import Pace
from kvtune.study.shared_baseline import take_baseline
from kvtune.study.streams import Captioning
from kvtune.study.study_folder import StudyFolder, default_name
from kvtune.study.together import Together

if TYPE_CHECKING:
    from kvtune.captioning import AnyCaptioner
    from kvtune.models.model_facts import AnyModel


@dataclass(frozen=True)
class Tournament:
    """What was found.

    Attributes
    ----------
    found
        The comparison of the studies that came to their ends.
    left_out
        Why, by method, of those that cannot serve the model.
    failed
        Why, by method, of those whose study stopped midway; the same call goes on with them.
    seconds
        What this call spent on each study: its time shared out by the tokens that were written for each.
    """

    found: Contest
    left_out: dict[str, str]
    failed: dict[str, str]
    seconds: dict[str, float]


def tournament(
    options: SearchOptions,
    methods: str,
    name: str | None,
    note: Callable[[str], None],
    progress: Callable[[str], AbstractContextManager[OnProgress]],
) -> Tournament:
    """Search each method's study to its end, validate it on held-out images, and compare the chosen points.

    The studies run side by side through one captioner, so that captions of one image share its prefill whichever study
    wants them; what an image's caption is without a method is written once for all. The same call goes on where the
    last one stopped, and each study is one that ``kvtune search`` with the same options would have made. A study that
    fails takes no other with it.

    Parameters
    ----------
    options
        As for a search; its method and study are set for each.
    methods
        Names with commas between, stacks too, or :data:`ALL`, which leaves out methods that cannot serve the model.
    name
        What the studies' names begin with; the model's when None.
    note
        Says something once.
    progress
        Shows the captions of all studies, by the name of the step.

    Raises
    ------
    RequestError
        If something asked for is wrong, or a method that was named cannot serve the model; nothing long was done.
    KvtuneError
        If every study fails midway; the same call goes on from there.
    """
    names = _names(methods)
    searches = {
        method: replace(options, method=method, study=default_name(name or options.model.name, method))
        for method in names
    }
    folders = {method: check_options(each) for method, each in searches.items()}
    from kvtune.captioning import open_captioner

    captioner = open_captioner(options.model, options.prompt, options.max_new_tokens, note)
    refused = _refused(folders, captioner)
    if refused and methods != ALL:
        raise next(iter(refused.values()))
    left_out = {method: str(error) for method, error in refused.items()}
    able = [method for method in names if method not in left_out]
    if not able:
        raise RequestError(f"no method can serve {options.model.name}")
    tokens = dict.fromkeys(able, 0)
    begun = time.monotonic()

    def side_by_side(what: str, works: Mapping[Hashable, Captioning[Any]]) -> dict[str, Exception]:
        with progress(what) as on_progress:
            together = Together(works, Pace(), on_progress)
            try:
                together.run()
            except RequestError as error:  # of a study, which a search would name
                raise RequestError(str(error).replace("--study name", "--name")) from None
        for method in able:
            tokens[method] += together.tokens.get((what, method), 0)
        return {method: together.failures[what, method] for method in able if (what, method) in together.failures}

    first = folders[able[0]]
    searched: dict[Hashable, Captioning[Any]] = {}
    for method in able:
        view = OneOfMany(method, note)
        others = None if folders[method] == first else first
        searched["captions", method] = searching(
            searches[method], folders[method], view, captioner=captioner, baseline_of=others
        )
    errors = side_by_side("captions", searched)
    judged: dict[Hashable, Captioning[Any]] = {}
    for method in able:
        if method not in errors:
            if first.exists():
                take_baseline(folders[method], load_manifest(folders[method]), first, load_manifest(first))
            judged["held-out captions", method] = validating(
                folders[method], options.coco, options.model.engine, captioner=captioner
            )
    errors |= side_by_side("held-out captions", judged)
    if len(errors) == len(able):
        raise next(iter(errors.values()))
    spent, written = time.monotonic() - begun, max(1, sum(tokens.values()))
    seconds = {method: spent * tokens[method] / written for method in able}
    found = contest([folders[method] for method in able if method not in errors])
    return Tournament(found, left_out, {method: str(error) for method, error in errors.items()}, seconds)


def _names(methods: str) -> list[str]:
    names = listed_methods(methods)
    if len(names) < 2:
        raise RequestError("--methods takes two or more names with commas between, or all")
    if len(set(names)) < len(names):
        raise RequestError("--methods has a method twice")
    return names


def _refused(folders: Mapping[str, StudyFolder], captioner: "AnyCaptioner") -> dict[str, RequestError]:
    """The methods that cannot serve the model, and why."""
    found: dict[str, RequestError] = {}
    for method, folder in folders.items():
        try:
            for sample in _space(folder, method, captioner.vlm).samples():
                captioner.check(sample)
        except RequestError as error:
            found[method] = error
    return found


def _space(folder: StudyFolder, method: str, vlm: "AnyModel") -> SearchSpace:
    """The space of a study that was begun, perhaps with one of its own, else the one that a search takes."""
    if folder.exists():
        return load_manifest(folder).fingerprint.space
    return usual_space(method, vlm)
