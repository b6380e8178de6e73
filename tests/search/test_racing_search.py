"""Searches that race: who is stopped, what is kept of them, and that nothing depends on how the search was run."""

import io
import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
from fake_search import FakeCaptioner, WordScoring, new_study, run_search
from killing import child, die_at
from optuna.trial import TrialState
from rich.console import Console

from kvtune.analysis.summarize import summarize
from kvtune.search import view
from kvtune.search.view import PlainView
from kvtune.statistics.racing import Race, race_counts
from kvtune.study.caption_log import captions_of, count_captions, read_captions
from kvtune.study.lock import locked
from kvtune.study.manifest import load_manifest
from kvtune.study.optuna_copy import OptunaCopy
from kvtune.study.rescore import rescore_study
from kvtune.study.study_folder import StudyFolder
from kvtune.study.trials import Ledger

IMAGES, TRIALS, ROUND = 100, 16, 4


def luckless(in_flight: int = 8) -> FakeCaptioner:
    """Captions whose luck is the image's: settings differ from each other as those of a real model do."""
    return FakeCaptioner(in_flight, shared_luck=True)


def begun(path: Path, sampler: str = "random", race: float | None = 0.95, **more: Any) -> StudyFolder:
    folder, _ = new_study(path, IMAGES, sampler, ROUND, race=race, **more)
    return folder


def searched(path: Path, sampler: str = "random", race: float | None = 0.95, **more: Any) -> StudyFolder:
    folder = begun(path, sampler, race, **more)
    run_search(folder, load_manifest(folder), TRIALS, luckless())
    return folder


@pytest.fixture(scope="module")
def raced(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    return searched(tmp_path_factory.mktemp("raced") / "s")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """The same settings, which a random sampler tries whatever their scores are, without a race."""
    return searched(tmp_path_factory.mktemp("whole") / "s", race=None)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, ...]:
    """What a search with TPE comes to that nothing disturbs."""
    return found(searched(tmp_path_factory.mktemp("straight") / "s", "tpe"))


def found(folder: StudyFolder) -> tuple[Any, ...]:
    """What must not depend on how a search was run; of a raced trial's captions, those that it was judged by."""
    manifest, ledger = load_manifest(folder), Ledger(folder.ledger)
    captions = [
        captions_of(folder.trial_captions(trial.number), manifest.judged_images(trial))
        for trial in [ledger.baseline, *ledger.trials]
    ]
    study = optuna.load_study(study_name=folder.name, storage=f"sqlite:///{folder.database}")
    stored = [(t.state, t.params, t.values, t.user_attrs, t.constraints) for t in study.trials]
    summary = summarize(folder, statistics=False)
    return ledger.baseline, ledger.trials, summary.trials, summary.front, summary.hypervolume, captions, stored


def test_who_is_stopped_and_when(raced: StudyFolder, whole: StudyFolder) -> None:
    """By hand: each trial's whole captions, looked at image by image against the front of the rounds before."""
    manifest = load_manifest(raced)
    order, race = manifest.image_order, Race.of(IMAGES)
    lines = {n: read_captions(whole.trial_captions(n)) for n in range(TRIALS)}
    counts = {n: race_counts(WordScoring().counts([lines[n][i] for i in order]).table) for n in lines}
    points = {t.number: t.point for t in summarize(whole, statistics=False).trials}
    stopped: dict[int, tuple[int, int]] = {}
    for number in range(TRIALS):
        earlier = [n for n in range(number // ROUND * ROUND) if n not in stopped]
        members = [
            n
            for n in earlier
            if not any(
                points[m][0] <= points[n][0] and points[m][1] >= points[n][1] and points[m] != points[n]
                for m in earlier
            )
        ]
        for look in race.looks:
            by = race.dominator(counts[number], [counts[n] for n in members], look) if members else None
            if by is not None:
                stopped[number] = look, members[by]
                break
    trials = summarize(raced, statistics=False).trials
    assert {t.number: (t.images, t.raced_out_by) for t in trials if t.state == "raced"} == stopped
    assert {t.number for t in trials if t.state == "complete"} == set(range(TRIALS)) - set(stopped)
    assert len(stopped) >= 3 and min(look for look, _ in stopped.values()) <= 40


def test_scores_of_a_raced_trial_are_over_the_first_images_of_the_race(raced: StudyFolder) -> None:
    manifest, ledger = load_manifest(raced), Ledger(raced.ledger)
    for trial in ledger.trials:
        if trial.state == "raced" and trial.metrics is not None:
            first = manifest.image_order[: trial.metrics["images"]]
            lines = read_captions(raced.trial_captions(trial.number))
            assert trial.metrics == WordScoring().score([lines[image_id] for image_id in first])
            assert len(first) <= len(lines) < IMAGES
        else:
            assert count_captions(raced.trial_captions(trial.number)) == IMAGES


def test_raced_trials_are_finished_but_not_on_the_front(raced: StudyFolder) -> None:
    summary, ledger = summarize(raced, statistics=False), Ledger(raced.ledger)
    states = {trial.number: trial.state for trial in summary.trials}
    assert ledger.finished == len(ledger.trials) == TRIALS
    assert all(states[number] == "complete" for number in summary.front)
    assert summary.race_confidence == 0.95


@pytest.mark.usefixtures("without_optuna")
def test_no_caption_of_a_raced_trial_is_asked_for_any_more(tmp_path: Path, raced: StudyFolder) -> None:
    folder, in_flight = begun(tmp_path / "s"), 8
    captioner = run_search(folder, load_manifest(folder), TRIALS, luckless(in_flight))
    out = {trial.number: trial.images for trial in summarize(raced, statistics=False).trials if trial.state == "raced"}
    assert captioner.withdrawn == set(out)
    for number, images in out.items():
        assert images <= sum(tag == number for tag, _ in captioner.asked) <= images + in_flight
    assert len(captioner.asked) < (TRIALS + 1) * IMAGES * 0.9


def test_optuna_has_their_values_and_keeps_them_off_the_front(raced: StudyFolder) -> None:
    study = optuna.load_study(study_name=raced.name, storage=f"sqlite:///{raced.database}")
    summary = summarize(raced, statistics=False)
    assert sorted(trial.number for trial in study.best_trials) == sorted(summary.front)
    for stored, trial in zip(study.trials, summary.trials, strict=True):
        assert stored.state == TrialState.COMPLETE and stored.values == list(trial.point or ())
        assert stored.constraints == {"raced": 1.0 if trial.state == "raced" else -1.0}
        assert stored.user_attrs.get("raced_out_by") == trial.raced_out_by
        assert stored.user_attrs["images"] == trial.images


def test_without_a_race_nothing_is_constrained(whole: StudyFolder) -> None:
    study = optuna.load_study(study_name=whole.name, storage=f"sqlite:///{whole.database}")
    assert all(trial.constraints == {} for trial in study.trials)
    assert {trial.state for trial in summarize(whole, statistics=False).trials} == {"complete"}
    assert summarize(whole, statistics=False).race_confidence is None


@pytest.mark.parametrize("in_flight", [1, 150])
def test_the_size_of_batches_changes_nothing(tmp_path: Path, in_flight: int, straight: tuple[Any, ...]) -> None:
    folder = begun(tmp_path / "s", "tpe")
    run_search(folder, load_manifest(folder), TRIALS, luckless(in_flight))
    assert found(folder) == straight
    assert sum(trial.state == "raced" for trial in straight[1]) >= 3


class Interrupted(FakeCaptioner):
    """Stops like Ctrl-C after a number of captions."""

    def __init__(self, after: int) -> None:
        super().__init__(in_flight=13, shared_luck=True)
        self.after = after

    def finish(self, batch: list[Any]) -> Iterator[Any]:
        for caption in super().finish(batch):
            if self.after == 0:
                raise KeyboardInterrupt
            self.after -= 1
            yield caption


def test_interruptions_change_nothing(tmp_path: Path, straight: tuple[Any, ...]) -> None:
    folder, draw = begun(tmp_path / "s", "tpe"), random.Random(0)
    while True:
        try:
            run_search(folder, load_manifest(folder), TRIALS, Interrupted(draw.randint(30, 200)))
            break
        except KeyboardInterrupt:
            continue
    assert found(folder) == straight


def test_a_search_in_pieces_races_each_trial_as_in_one(tmp_path: Path, straight: tuple[Any, ...]) -> None:
    """A round that is cut in two has the same members for both parts."""
    folder = begun(tmp_path / "s", "tpe")
    for trials in (2, 5, 6, 11, TRIALS):
        run_search(folder, load_manifest(folder), trials, luckless())
    assert found(folder) == straight


@pytest.mark.usefixtures("optuna_in_step")
def test_killed_at_random_steps(tmp_path: Path, straight: tuple[Any, ...]) -> None:
    folder, draw, kills = begun(tmp_path / "s", "tpe"), random.Random(3), 0

    def search(step: int) -> None:
        die_at(step)
        with locked(folder.path):
            run_search(folder, load_manifest(folder), TRIALS, luckless(in_flight=5))

    while (ended := child(lambda: search(draw.randint(200, 1500)))) != 0:
        assert ended == -signal.SIGKILL
        draw.random()
        kills += 1
    assert kills >= 3
    assert found(folder) == straight


@pytest.mark.usefixtures("without_optuna")
def test_a_trial_that_fails_alone_leaves_the_race_as_it_is(tmp_path: Path, raced: StudyFolder) -> None:
    class Failing(FakeCaptioner):
        def finish(self, batch: list[Any]) -> Iterator[Any]:
            if any(request.tag == 13 for request in batch):
                raise RuntimeError("device assert")
            yield from super().finish(batch)

    folder = begun(tmp_path / "s")
    run_search(folder, load_manifest(folder), TRIALS - 1, Failing(shared_luck=True))
    trials, others = Ledger(folder.ledger).trials, Ledger(raced.ledger).trials
    assert trials[13].state == "failed" and trials[13].reason == "RuntimeError: device assert"
    assert [t for t in trials if t.number != 13] == [t for t in others if t.number != 13]


def copied(folder: StudyFolder, to: Path) -> StudyFolder:
    return StudyFolder(Path(shutil.copytree(folder.path, to / folder.name)))


def test_rescoring_keeps_who_was_raced_out(tmp_path: Path, raced: StudyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = copied(raced, tmp_path)
    before = Ledger(folder.ledger).trials
    other = WordScoring("words-2", blind_to="dog")
    run_search(folder, load_manifest(folder), TRIALS, luckless(), other)
    after = Ledger(folder.ledger).trials
    assert [(t.number, t.state, t.by) for t in before] == [(t.number, t.state, t.by) for t in after]
    for old, new in zip(before, after, strict=True):
        assert old.metrics is not None and new.metrics is not None
        assert old.metrics["images"] == new.metrics["images"] and new.metrics["scorer"] == "words-2"
    monkeypatch.setattr("kvtune.study.rescore.Scoring", lambda truth: WordScoring())
    monkeypatch.setattr("kvtune.study.rescore.truth_of", lambda folder: {})
    assert rescore_study(folder) == TRIALS + 1
    assert Ledger(folder.ledger).trials == before


def test_a_lost_database_is_built_again_with_constraints(tmp_path: Path, raced: StudyFolder) -> None:
    folder = copied(raced, tmp_path)
    before = found(folder)
    folder.database.unlink()
    copy = OptunaCopy(folder, load_manifest(folder), None)
    copy.follow(Ledger(folder.ledger))
    copy.close()
    assert found(folder) == before


@pytest.mark.usefixtures("without_optuna")
def test_lines_say_who_is_raced_out_and_what_that_spares(
    tmp_path: Path, raced: StudyFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(view, "PLAIN_SECONDS", 0.0)
    folder, used = begun(tmp_path / "s"), Console(file=io.StringIO(), width=120)
    captioner = run_search(folder, load_manifest(folder), TRIALS, luckless(), view=PlainView(used))
    lines = used.file.getvalue().splitlines()  # type: ignore[attr-defined]
    for trial in summarize(raced, statistics=False).trials:
        if trial.state == "raced":
            scores = f"trial {trial.number}: CHAIR_S {trial.rate('chair_s'):.1f}, F1 {trial.rate('f1'):.1f}, raced out"
            wanted = f"{scores} after {trial.images} images by trial {trial.raced_out_by}  ("
            assert sum(line.startswith(wanted) for line in lines) == 1
    to_write = [int(line.split()[2]) for line in lines if " of " in line and " captions" in line]
    assert to_write[0] == (TRIALS + 1) * IMAGES and to_write == sorted(to_write, reverse=True)
    kept = sum(count_captions(folder.trial_captions(number)) for number in (None, *range(TRIALS)))
    assert kept <= to_write[-1] < to_write[0] and len(captioner.withdrawn) >= 3


@pytest.mark.usefixtures("without_optuna")
def test_too_few_images_for_a_look_are_not_raced(tmp_path: Path) -> None:
    folder, manifest = new_study(tmp_path / "s", 15, race=0.95)
    assert manifest.race is None
    run_search(folder, manifest, 8)
    assert {trial.state for trial in Ledger(folder.ledger).trials} == {"complete"}


def test_reports_show_the_captions_that_a_trial_was_judged_by(raced: StudyFolder) -> None:
    from kvtune.report.data.caption_sets import caption_sets

    summary, order = summarize(raced, statistics=False), load_manifest(raced).image_order
    shown = {number: list(lines) for number, lines in caption_sets(raced, summary)}
    for trial in summary.trials:
        if trial.state == "raced":
            assert shown[trial.number] == order[: trial.images]
        else:
            assert sorted(shown[trial.number]) == sorted(order)
