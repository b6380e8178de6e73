"""A whole search with a fake captioner: what is asked, what is kept, what happens when something fails."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from fake_search import PUBLISHED, FakeCaptioner, WordScoring, fake_images, new_study, run_search
from optuna.trial import TrialState

from kvtune.analysis.summarize import summarize
from kvtune.analysis.summary import StudySummary
from kvtune.chair import METRICS
from kvtune.errors import KvtuneError, RequestError
from kvtune.spaces import SearchSpace
from kvtune.study.caption_log import read_captions
from kvtune.study.manifest import load_manifest
from kvtune.study.study_folder import StudyFolder
from kvtune.study.trials import Ledger


def loaded(folder: StudyFolder) -> optuna.Study:
    return optuna.load_study(study_name=folder.name, storage=f"sqlite:///{folder.database}")


def found(folder: StudyFolder) -> tuple[Any, ...]:
    """What must not depend on how a search was run."""
    summary = summarize(folder)
    captions = {path.name: read_captions(path) for path in sorted(folder.captions.iterdir())}
    stored = [(trial.state, trial.params, trial.values, trial.user_attrs) for trial in loaded(folder).trials]
    return summary.trials, summary.front, summary.baseline, summary.hypervolume, captions, stored


def without_name(summary: StudySummary) -> tuple[Any, ...]:
    return summary.trials, summary.front, summary.hypervolume


@pytest.mark.usefixtures("without_optuna")
def test_a_search_holds_what_was_asked_for(tmp_path: Path) -> None:
    folder, manifest = new_study(tmp_path / "s")
    captioner = run_search(folder, manifest, 10)
    summary = summarize(folder)
    images = [image_id for image_id, _ in fake_images()]
    assert [trial.number for trial in summary.trials] == list(range(10))
    assert all(trial.state == "complete" and trial.images == 10 for trial in summary.trials)
    assert summary.trials[0].params == PUBLISHED and summary.trials[0].published
    assert summary.baseline is not None and summary.baseline.number is None and summary.baseline.params == {}
    recorded = load_manifest(folder).reference_point
    assert recorded is not None and summary.reference_point == recorded.model_dump()
    assert summary.reference_point == {
        "chair_s": (summary.baseline.rate("chair_s") or 0) + 5,
        "f1": (summary.baseline.rate("f1") or 0) - 10,
    }
    assert {path.name for path in folder.captions.iterdir()} == {
        "baseline.jsonl",
        *(f"trial-{number:04d}.jsonl" for number in range(10)),
    }
    for number in (None, *range(10)):
        assert sorted(read_captions(folder.trial_captions(number))) == sorted(images)
    assert len(captioner.asked) == len(set(captioner.asked)) == 11 * 10


@pytest.mark.usefixtures("without_optuna")
def test_the_baseline_comes_first_and_a_round_shares_its_images(tmp_path: Path) -> None:
    folder, manifest = new_study(tmp_path / "s")
    asked = run_search(folder, manifest, 10).asked
    images = manifest.image_order
    assert sorted(images) == sorted(image_id for image_id, _ in fake_images()) and images != sorted(images)
    rounds: list[list[int | None]] = [[None], [0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert asked == [(tag, image_id) for tags in rounds for image_id in images for tag in tags]


def test_optuna_opens_the_study(tmp_path: Path) -> None:
    folder, manifest = new_study(tmp_path / "my-study")
    run_search(folder, manifest, 6)
    study = loaded(folder)
    summary = summarize(folder)
    assert study.metric_names == ["chair_s", "f1"]
    assert [direction.name for direction in study.directions] == ["MINIMIZE", "MAXIMIZE"]
    assert sorted(trial.number for trial in study.best_trials) == sorted(summary.front)
    for trial, ours in zip(study.trials, summary.trials, strict=True):
        assert trial.state == TrialState.COMPLETE
        assert trial.values == list(ours.point or ())
        assert trial.params == {name: ours.params[name] for name in manifest.fingerprint.space.parameters}
        for name in (*METRICS, "images"):
            assert trial.user_attrs[name] == getattr(ours.scores, name)
        assert trial.user_attrs["scorer"] == "words-1"
    assert study.trials[0].user_attrs["published"] is True
    assert study.user_attrs["baseline"]["chair_s"] == summary.baseline.rate("chair_s")  # type: ignore[union-attr]
    assert (study.user_attrs["model"], study.user_attrs["method"]) == ("fake", "kvsmooth")


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random", "grid"])
def test_stopping_and_extending_leave_no_trace(tmp_path: Path, sampler: str) -> None:
    straight, manifest = new_study(tmp_path / "a" / "s", sampler=sampler)
    run_search(straight, manifest, 11)
    pieces, manifest = new_study(tmp_path / "b" / "s", sampler=sampler)
    for trials in (1, 6, 3, 11):
        run_search(pieces, load_manifest(pieces), trials)
    assert found(pieces) == found(straight)


@pytest.mark.usefixtures("without_optuna")
def test_the_size_of_batches_changes_nothing(tmp_path: Path) -> None:
    one, manifest = new_study(tmp_path / "a" / "s", sampler="tpe")
    run_search(one, manifest, 12, FakeCaptioner(in_flight=1))
    other, manifest = new_study(tmp_path / "b" / "s", sampler="tpe")
    captioner = run_search(other, manifest, 12, FakeCaptioner(in_flight=7))
    assert without_name(summarize(one)) == without_name(summarize(other))
    assert max(len(tags) for tags in captioner.batches) == 4


def test_a_finished_search_asks_for_nothing(tmp_path: Path) -> None:
    folder, manifest = new_study(tmp_path / "s")
    run_search(folder, manifest, 5)
    before = found(folder)
    assert run_search(folder, load_manifest(folder), 5).asked == []
    assert run_search(folder, load_manifest(folder), 2).asked == []
    assert found(folder) == before


@pytest.mark.usefixtures("without_optuna")
def test_without_a_published_preset(tmp_path: Path) -> None:
    folder, manifest = new_study(tmp_path / "s", published=False)
    run_search(folder, manifest, 3)
    assert not any(trial.published for trial in summarize(folder).trials)


@pytest.mark.usefixtures("without_optuna")
def test_a_grid_ends_when_it_is_tried_whole(tmp_path: Path) -> None:
    space = SearchSpace.model_validate(
        {
            "method": "kvsmooth",
            "parameters": {"lambda_ref": {"low": 0, "high": 1, "step": 0.5}},
            "fixed": {"end_layer": 8},
        }
    )
    folder, manifest = new_study(tmp_path / "s", sampler="grid", space=space, published=False)
    run_search(folder, manifest, 20)
    assert sorted(trial.params["lambda_ref"] for trial in summarize(folder).trials) == [0, 0.5, 1]


class Interrupted(FakeCaptioner):
    """Stops like Ctrl-C after a number of captions."""

    def __init__(self, after: int) -> None:
        super().__init__(in_flight=3)
        self.after = after

    def finish(self, batch: list[Any]) -> Iterator[Any]:
        for caption in super().finish(batch):
            if self.after == 0:
                raise KeyboardInterrupt
            self.after -= 1
            yield caption


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_interruptions_lose_only_what_was_in_flight(tmp_path: Path, sampler: str) -> None:
    straight, manifest = new_study(tmp_path / "a" / "s", sampler=sampler)
    run_search(straight, manifest, 9)
    folder, manifest = new_study(tmp_path / "b" / "s", sampler=sampler)
    asked, interruptions = 0, 0
    while True:
        captioner = Interrupted(after=17)
        try:
            run_search(folder, load_manifest(folder), 9, captioner)
            break
        except KeyboardInterrupt:
            interruptions += 1
        finally:
            asked += len(captioner.asked)
    assert found(folder) == found(straight)
    assert interruptions == 100 // 17
    assert asked <= 100 + 3 * interruptions


def test_a_running_trial_is_seen_as_such(tmp_path: Path) -> None:
    folder, manifest = new_study(tmp_path / "s")
    with pytest.raises(KeyboardInterrupt):
        run_search(folder, manifest, 6, Interrupted(after=40))
    states = [(trial.state, trial.images) for trial in summarize(folder).trials]
    assert [state for state, _ in states] == ["running"] * 4
    assert sum(images for _, images in states) == 30
    assert [trial.state for trial in loaded(folder).trials] == [TrialState.RUNNING] * 4
    assert all(trial.params for trial in loaded(folder).trials)
    assert summarize(folder).front == []
    run_search(folder, load_manifest(folder), 6)
    assert [trial.number for trial in loaded(folder).trials] == list(range(6))


@pytest.mark.usefixtures("optuna_in_step")
def test_ctrl_c_amid_telling_optuna_adds_no_trial_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add, left = optuna.Study.add_trial, 2

    def interrupted(study: optuna.Study, trial: optuna.trial.FrozenTrial) -> None:
        nonlocal left
        add(study, trial)
        if (left := left - 1) == 0:
            raise KeyboardInterrupt

    folder, manifest = new_study(tmp_path / "s")
    monkeypatch.setattr("kvtune.study.optuna_copy.optuna.Study.add_trial", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_search(folder, manifest, 6)
    assert [trial.state for trial in loaded(folder).trials] == [TrialState.RUNNING] * 4
    run_search(folder, load_manifest(folder), 6)
    assert [trial.number for trial in loaded(folder).trials] == list(range(6))


class Failing(FakeCaptioner):
    """Fails on every batch that has one of these tags, or any method at all, or anything."""

    def __init__(self, tags: Iterable[Any] = (), everything: bool = False, error: Exception | None = None) -> None:
        super().__init__()
        self.tags, self.everything = set(tags), everything
        self.error = error or RuntimeError("CUDA error: out of memory\nsecond line")

    def finish(self, batch: list[Any]) -> Iterator[Any]:
        if self.everything or self.tags & {request.tag for request in batch}:
            raise self.error
        yield from super().finish(batch)


def test_one_trial_that_fails_takes_no_other_with_it(tmp_path: Path) -> None:
    folder, manifest = new_study(tmp_path / "s")
    run_search(folder, manifest, 8, Failing(tags=[2, 5]))
    trials = summarize(folder).trials
    assert [trial.number for trial in trials if trial.state == "failed"] == [2, 5]
    assert sum(trial.state == "complete" for trial in trials) == 8
    assert [trial.number for trial in trials] == list(range(10))
    assert trials[2].rate("chair_s") is None
    stored = loaded(folder).trials
    assert stored[2].state == TrialState.FAIL
    assert stored[2].user_attrs["reason"] == "RuntimeError: CUDA error: out of memory"


def test_failed_trials_stay_failed_and_others_are_the_same_after_an_interruption(tmp_path: Path) -> None:
    straight, manifest = new_study(tmp_path / "a" / "s", sampler="nsga2")
    run_search(straight, manifest, 8, Failing(tags=[2, 5]))
    pieces, manifest = new_study(tmp_path / "b" / "s", sampler="nsga2")
    for trials in (1, 3, 4, 8):
        run_search(pieces, load_manifest(pieces), trials, Failing(tags=[2, 5]))
    first, second = summarize(straight), summarize(pieces)
    assert [trial.params for trial in first.trials] == [trial.params for trial in second.trials]
    assert first.front == second.front


def test_when_nothing_works_nobody_is_blamed(tmp_path: Path) -> None:
    folder, manifest = new_study(tmp_path / "s")
    run_search(folder, manifest, 4)
    broken = Failing(everything=True)
    with pytest.raises(KvtuneError, match="RuntimeError: CUDA error: out of memory; no caption is lost, and once th"):
        run_search(folder, load_manifest(folder), 8, broken)
    assert [trial.state for trial in summarize(folder).trials[4:]] == ["running"] * 4
    run_search(folder, load_manifest(folder), 8)
    straight, manifest = new_study(tmp_path / "straight" / "s")
    run_search(straight, manifest, 8)
    assert found(folder) == found(straight)


@pytest.mark.usefixtures("without_optuna")
def test_a_baseline_that_fails_ends_the_search(tmp_path: Path) -> None:
    folder, manifest = new_study(tmp_path / "s")
    with pytest.raises(KvtuneError, match="captioning stopped: RuntimeError"):
        run_search(folder, manifest, 4, Failing(tags=[None]))
    assert summarize(folder).trials == []


@pytest.mark.usefixtures("without_optuna")
def test_an_unreadable_image_midway_is_no_trials_fault(tmp_path: Path) -> None:
    folder, manifest = new_study(tmp_path / "s")
    error = RequestError("image 3.jpg cannot be read")
    with pytest.raises(KvtuneError, match=r"image 3.jpg cannot be read; no caption is lost") as caught:
        run_search(folder, manifest, 4, Failing(tags=[1], error=error))
    assert caught.value.exit_code == 1
    assert all(trial.state == "running" for trial in summarize(folder).trials)


@pytest.mark.usefixtures("without_optuna")
def test_endless_failure_is_stopped(tmp_path: Path) -> None:
    folder, manifest = new_study(tmp_path / "s")
    with pytest.raises(KvtuneError, match="trials 5 to 7 failed one after the other, the last with RuntimeError"):
        run_search(folder, manifest, 8, Failing(tags=range(4, 100)))
    assert [trial.state for trial in summarize(folder).trials] == ["complete"] * 4 + ["failed"] * 4


def test_captions_that_are_complete_are_scored_without_the_model(tmp_path: Path) -> None:
    """As after a kill between the last caption and the scores."""
    folder, manifest = new_study(tmp_path / "s")
    run_search(folder, manifest, 8)
    before = found(folder)
    lines = folder.ledger.read_text().splitlines(keepends=True)
    kept = [
        line for line in lines if not (json.loads(line)["number"] in (5, 7) and json.loads(line)["event"] == "complete")
    ]
    folder.ledger.write_text("".join(kept))
    assert run_search(folder, load_manifest(folder), 8, Failing(everything=True)).asked == []
    assert found(folder) == before


def test_a_new_scorer_scores_everything_again(tmp_path: Path) -> None:
    folder, manifest = new_study(tmp_path / "s")
    run_search(folder, manifest, 4)
    run_search(folder, load_manifest(folder), 8, scoring=WordScoring("words-2", blind_to="dog"))
    trials = Ledger(folder.ledger).trials
    assert {trial.metrics["scorer"] for trial in trials if trial.metrics} == {"words-2"}
    whole, manifest = new_study(tmp_path / "whole" / "s")
    run_search(whole, manifest, 8, scoring=WordScoring("words-2", blind_to="dog"))
    assert found(folder) == found(whole)
    assert load_manifest(folder).reference_point == load_manifest(whole).reference_point


@pytest.mark.usefixtures("without_optuna")
def test_captions_of_other_images_are_refused(tmp_path: Path) -> None:
    folder, manifest = new_study(tmp_path / "s")
    folder.captions.mkdir(parents=True)
    line = {"image_id": 5, "caption": "x", "tokens": 1, "finish_reason": "eos"}
    folder.trial_captions(0).write_text(json.dumps(line) + "\n")
    with pytest.raises(KvtuneError, match=r"trial-0000.jsonl has a caption of image 5, which is no tune image"):
        run_search(folder, manifest, 4)


@pytest.mark.usefixtures("without_optuna")
def test_a_published_setting_that_is_no_point_of_the_space_is_no_trial(tmp_path: Path) -> None:
    layers = {"start_layer": {"low": 0, "high": 3}, "end_layer": {"low": 4, "high": 8}}
    space = SearchSpace.model_validate(
        {"method": "kvsmooth", "parameters": {"lambda_ref": {"low": 0, "high": 0.5}, **layers}}
    )
    folder, manifest = new_study(tmp_path / "s", 5, space=space)
    published = [each.model_copy(update={"enqueued": False}) for each in manifest.published]
    run_search(folder, manifest.model_copy(update={"published": published}), 2)
    assert published and not any(trial.published for trial in Ledger(folder.ledger).trials)
