"""What a search will cost."""

from pathlib import Path
from typing import Any

import pytest
from fake_search import FakeCaptioner, new_study, run_search

from kvtune.search.budget import cost
from kvtune.search.view import View
from kvtune.study.study_folder import StudyFolder

pytestmark = pytest.mark.usefixtures("without_optuna")


def test_the_cost_in_words() -> None:
    assert cost(25_450, 96.4, 2545, True) == (
        "at most 25,450 captions, 2.5 million tokens, 0:42:25 to go; racing spares a part"
    )
    assert cost(300, 70.0, 75, False) == "300 captions, 21,000 tokens, 0:01:15 to go"
    assert cost(300, 70.0, None, False) == "300 captions, 21,000 tokens to go"


class Notes(View):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.mark.parametrize("race", [0.95, None])
def test_the_cost_is_told_once_after_the_first_block(tmp_path: Path, race: float | None) -> None:
    folder, manifest = new_study(tmp_path / "s", 60, parallel_trials=4, race=race)
    view = Notes()
    run_search(folder, manifest, 4, FakeCaptioner(in_flight=5), view=view)
    told = [note for note in view.notes if "captions" in note]
    assert len(told) == 1
    first = manifest.image_order[:20]
    lines = {line["image_id"]: line for line in _lines(folder, None)}
    tokens = sum(lines[image_id]["tokens"] for image_id in first) / 20
    start = f"after 20 captions: {'at most ' if race else ''}280 captions, {round(280 * tokens):,} tokens, 0:0"
    assert told[0].startswith(start), (told, start)
    assert told[0].endswith("to go; racing spares a part" if race else "to go")


def _lines(folder: StudyFolder, number: int | None) -> list[dict[str, Any]]:
    from kvtune.study.caption_log import read_captions

    return list(read_captions(folder.trial_captions(number)).values())
