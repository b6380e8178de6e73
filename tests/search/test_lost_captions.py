"""Captions of judged trials that are lost: said by every reader, written again by the next search."""

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fake_search import FakeCaptioner, new_study, run_search
from killing import child, die_at
from scored_studies import scored_study

from kvtune.analysis.summarize import summarize
from kvtune.cli.main import main
from kvtune.errors import KvtuneError
from kvtune.search.view import View
from kvtune.study.caption_log import captions_sha256, read_captions
from kvtune.study.judged import judged_captions, lost_captions
from kvtune.study.manifest import load_manifest
from kvtune.study.rescore import rescore_study
from kvtune.study.study_folder import StudyFolder
from kvtune.study.trials import Ledger, Trial


def empty(path: Path) -> None:
    path.write_bytes(b"")


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])


def unreadable(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], b"\0" * 20 + b"\n", *lines[2:]]))


def changed(path: Path) -> None:
    path.write_text(path.read_text().replace("There is", "There was"))


DAMAGES = {"empty": empty, "missing": Path.unlink, "torn": torn, "unreadable": unreadable, "changed": changed}
SAID = {
    "empty": "has no caption of image",
    "missing": "has no caption of image",
    "torn": "has no caption of image",
    "unreadable": "line 2 is not a JSON object",
    "changed": "has other captions than were scored",
}


class Notes(View):
    """Keeps what was said, and that trials start before their captions come."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.started_numbers: set[int | None] = set()

    def note(self, text: str) -> None:
        self.said.append(text)

    def started(self, number: int | None, captions: int) -> None:
        self.started_numbers.add(number)

    def caption(self, number: int | None) -> None:
        assert number in self.started_numbers

    def ended(self, trial: Trial) -> None:
        self.started_numbers.remove(trial.number)


def state(folder: StudyFolder) -> tuple[Any, ...]:
    return (
        {path.name: read_captions(path) for path in sorted(folder.captions.glob("*.jsonl"))},
        summarize(folder, statistics=False),
        [trial.captions for trial in Ledger(folder.ledger).trials],
    )


def test_a_trial_records_the_digest_of_its_captions(tmp_path: Path) -> None:
    folder, manifest = new_study(tmp_path / "s", images=8, race=0.95)
    run_search(folder, manifest, 4)
    ledger = Ledger(folder.ledger)
    for trial in [ledger.baseline, *ledger.trials]:
        captions = judged_captions(folder, manifest, trial)
        assert trial.captions == captions_sha256(captions)
        assert [line["image_id"] for line in captions] == manifest.judged_images(trial)
    assert captions_sha256([{"image_id": 1, "caption": "A dög.", "tokens": 3, "finish_reason": "eos"}]) == (
        "04bdf2242aefd1ae8f443dbc362427daa05718932d33697e1aef3f77e8fdc533"
    )


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("number", [None, 2])
def test_the_next_search_writes_them_again(tmp_path: Path, damage: str, number: int | None) -> None:
    folder, manifest = new_study(tmp_path / "s", images=8)
    run_search(folder, manifest, 5)
    before = state(folder)
    DAMAGES[damage](folder.trial_captions(number))
    view = Notes()
    captioner = run_search(folder, load_manifest(folder), 5, view=view)
    assert state(folder) == before
    assert {tag for tag, _ in captioner.asked} == {number}
    assert len(captioner.asked) == {"torn": 3, "unreadable": 1}.get(damage, 8)
    (said,) = view.said
    assert not view.started_numbers
    assert SAID[damage] in said and "written again" in said
    assert run_search(folder, load_manifest(folder), 5).asked == []
    aside = folder.captions / f"{folder.trial_captions(number).name}.lost"
    assert aside.exists() == (damage in ("unreadable", "changed")), "nothing that was paid for is thrown away"


def test_a_folder_whose_name_has_a_semicolon_is_named_whole(tmp_path: Path) -> None:
    folder, manifest = new_study(tmp_path / "a; b" / "s", images=8)
    run_search(folder, manifest, 2)
    unreadable(folder.trial_captions(1))
    view = Notes()
    run_search(folder, load_manifest(folder), 2, view=view)
    assert view.said == [f"{folder.trial_captions(1)} line 2 is not a JSON object; 1 captions are written again"]


def test_captions_that_a_raced_trial_has_beyond_those_it_was_judged_by_do_not_hide_that_others_are_lost(
    tmp_path: Path,
) -> None:
    folder, manifest = new_study(tmp_path / "s", images=200, race=0.95, published=True)
    run_search(folder, manifest, 12, captioner=FakeCaptioner(in_flight=64, shared_luck=True))
    raced = next(trial for trial in summarize(folder, statistics=False).trials if trial.state == "raced")
    path = folder.trial_captions(raced.number)
    lines = path.read_text().splitlines(keepends=True)
    judged = manifest.image_order[: raced.images]
    lost = [line for line in lines if json.loads(line)["image_id"] in judged[:3]]
    assert len(lost) == 3 and len(lines) - 3 >= raced.images, "more were in flight than are lost"
    path.write_text("".join(line for line in lines if line not in lost))
    view = Notes()
    run_search(folder, load_manifest(folder), 12, captioner=FakeCaptioner(shared_luck=True), view=view)
    assert "; 3 captions are written again" in view.said[0]


def test_a_raced_trial_is_captioned_for_the_images_that_it_was_judged_by(tmp_path: Path) -> None:
    folder, manifest = new_study(tmp_path / "s", images=200, race=0.95, published=True)
    run_search(folder, manifest, 12, captioner=FakeCaptioner(shared_luck=True))
    before = state(folder)[1:]
    raced = [trial for trial in before[0].trials if trial.state == "raced"]
    assert raced
    folder.trial_captions(raced[0].number).unlink()
    captioner = run_search(folder, load_manifest(folder), 12, captioner=FakeCaptioner(shared_luck=True))
    assert len(captioner.asked) == raced[0].images
    assert state(folder)[1:] == before


def test_new_captions_have_new_scores(tmp_path: Path) -> None:
    """On another device a model may say something else: the trial is then scored as it is now."""
    folder, manifest = new_study(tmp_path / "s", images=8)
    run_search(folder, manifest, 5)
    empty(folder.trial_captions(1))
    run_search(folder, load_manifest(folder), 5, captioner=FakeCaptioner(shared_luck=True))
    assert lost_captions(folder, manifest, Ledger(folder.ledger)) == {}
    whole, other = new_study(tmp_path / "whole" / "s", images=8)
    run_search(whole, other, 5, captioner=FakeCaptioner(shared_luck=True))
    assert summarize(folder).trials[1].scores == summarize(whole).trials[1].scores


@pytest.mark.parametrize("damage", ["torn", "changed"])
def test_killed_while_it_writes_them_again(tmp_path: Path, damage: str) -> None:
    folder, manifest = new_study(tmp_path / "s", images=8)
    run_search(folder, manifest, 5)
    before = state(folder)
    DAMAGES[damage](folder.trial_captions(2))

    def again() -> None:
        run_search(folder, load_manifest(folder), 5)

    for step in range(1, 60, 3):
        ended = child(lambda step=step: (die_at(step), again()))  # type: ignore[misc]
        if ended == 0:
            break
        assert ended == -signal.SIGKILL
    again()
    assert state(folder) == before


def test_a_study_without_digests_still_reads_and_gets_them(tmp_path: Path) -> None:
    folder, manifest = new_study(tmp_path / "s", images=8)
    run_search(folder, manifest, 5)
    before = state(folder)
    lines = [json.loads(line) for line in folder.ledger.read_text().splitlines()]
    for line in lines:
        line.pop("captions", None)
    folder.ledger.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert [trial.captions for trial in Ledger(folder.ledger).trials] == [None] * 5
    assert summarize(folder, statistics=False) == before[1]
    run_search(folder, load_manifest(folder), 5)
    assert state(folder) == before


READERS: dict[str, Callable[[StudyFolder], list[str]]] = {
    "pareto": lambda folder: ["pareto", str(folder.path)],
    "pareto --json": lambda folder: ["pareto", str(folder.path), "--json"],
    "export": lambda folder: ["export", str(folder.path), "--select", "trial:2"],
}


@pytest.mark.usefixtures("without_optuna")
@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("reader", READERS)
def test_who_reads_the_study_is_told(tmp_path: Path, damage: str, reader: str, capsys: Any) -> None:
    folder = scored_study(tmp_path / "s", images=10, trials=4)
    DAMAGES[damage](folder.trial_captions(2))
    with pytest.raises(SystemExit) as ended:
        main(READERS[reader](folder))
    assert ended.value.code == 0
    said = " ".join("".join(capsys.readouterr()).split())
    assert SAID[damage].partition(" of ")[0] in said
    assert "kvtune search" in said
    assert ("kvtune rescore" in said) == (damage == "changed")


@pytest.mark.usefixtures("without_optuna")
def test_the_note_has_the_share(tmp_path: Path) -> None:
    folder = scored_study(tmp_path / "s", images=10, trials=4)
    torn(folder.trial_captions(2))
    (note,) = (note for number, note in summarize(folder).notes if number == 2 and note.kind == "lost-captions")
    assert (note.count, note.share) == (4, 40.0)
    empty(folder.trial_captions(None))
    assert [number for number, note in summarize(folder).notes if note.kind == "lost-captions"] == [None, 2]


def test_scoring_again_takes_captions_as_they_are_but_wants_them_all(tmp_path: Path) -> None:
    folder = scored_study(tmp_path / "s", images=10, trials=4)
    changed(folder.trial_captions(2))
    rescore_study(folder)
    assert lost_captions(folder, load_manifest(folder), Ledger(folder.ledger)) == {}
    torn(folder.trial_captions(2))
    with pytest.raises(KvtuneError, match=r"trial-0002.jsonl has no caption of image \d+ \(4 missing\); kvtune search"):
        rescore_study(folder)
