"""Baseline captions taken over from another study: whole, of the same model and images, and never over others."""

import signal
from contextlib import closing
from pathlib import Path

import pytest
from fake_search import new_study, run_search
from killing import child, die_at

from kvtune.study.caption_log import CaptionLog
from kvtune.study.lock import locked
from kvtune.study.manifest import Manifest
from kvtune.study.shared_baseline import take_baseline
from kvtune.study.study_folder import StudyFolder


@pytest.fixture
def source(tmp_path: Path) -> tuple[StudyFolder, Manifest]:
    folder, manifest = new_study(tmp_path / "first")
    run_search(folder, manifest, 1)
    return folder, manifest


def test_they_are_copied_whole_and_not_written_again(source: tuple[StudyFolder, Manifest], tmp_path: Path) -> None:
    folder, manifest = new_study(tmp_path / "second", seed=1)
    take_baseline(folder, manifest, *source)
    assert folder.trial_captions(None).read_bytes() == source[0].trial_captions(None).read_bytes()
    captioner = run_search(folder, manifest, 1)
    assert {tag for tag, _ in captioner.asked} == {0}


@pytest.mark.parametrize(
    "change",
    [{"prompt": "Say."}, {"model": "other"}, {"subset": "2" * 64}, {"dtype": "float16"}, {"max_new_tokens": 9}],
)
def test_nothing_is_taken_of_another_model_or_other_images(
    source: tuple[StudyFolder, Manifest], tmp_path: Path, change: dict[str, object]
) -> None:
    folder, manifest = new_study(tmp_path / "second")
    other = manifest.model_copy(update={"fingerprint": manifest.fingerprint.model_copy(update=change)})
    take_baseline(folder, other, *source)
    assert not folder.captions.exists()


@pytest.mark.parametrize("same", [True, False])
def test_held_out_captions_are_taken_where_the_same_images_are_held_out(
    source: tuple[StudyFolder, Manifest], tmp_path: Path, same: bool
) -> None:
    held = source[0].holdout_captions("baseline")
    with closing(CaptionLog(held)) as log:
        for image_id in source[1].holdout.image_ids:
            log.append(image_id, "A dog.", 3, "eos")
    folder, manifest = new_study(tmp_path / "second")
    if not same:
        others = manifest.holdout.model_copy(update={"sha256": "2" * 64})
        manifest = manifest.model_copy(update={"holdout": others})
    take_baseline(folder, manifest, *source)
    assert folder.trial_captions(None).exists()
    taken = folder.holdout_captions("baseline")
    assert taken.read_bytes() == held.read_bytes() if same else not taken.exists()


def test_captions_that_are_there_stay(source: tuple[StudyFolder, Manifest], tmp_path: Path) -> None:
    folder, manifest = new_study(tmp_path / "second")
    folder.captions.mkdir()
    folder.trial_captions(None).write_text("mine")
    take_baseline(folder, manifest, *source)
    assert folder.trial_captions(None).read_text() == "mine"


def test_what_a_killed_copy_left_is_removed_with_the_other_leftovers(
    source: tuple[StudyFolder, Manifest], tmp_path: Path
) -> None:
    folder, manifest = new_study(tmp_path / "second")
    assert child(lambda: (die_at(1), take_baseline(folder, manifest, *source))) == -signal.SIGKILL  # type: ignore[arg-type]
    assert list(folder.captions.iterdir())
    with locked(folder.path):
        assert not list(folder.captions.iterdir())


def test_half_of_them_are_not_taken(source: tuple[StudyFolder, Manifest], tmp_path: Path) -> None:
    file = source[0].trial_captions(None)
    file.write_text("".join(file.read_text().splitlines(keepends=True)[:4]))
    folder, manifest = new_study(tmp_path / "second")
    take_baseline(folder, manifest, *source)
    assert not folder.trial_captions(None).exists()
