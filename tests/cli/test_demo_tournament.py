"""A tournament of the demo: its studies are those that separate searches make, and images are prefilled once."""

import json
from pathlib import Path
from typing import Any

import pytest

from kvtune.captioning import Captioner
from kvtune.cli.main import main
from kvtune.demo import demo_model_path
from kvtune.study.caption_log import read_captions
from kvtune.study.study_folder import StudyFolder
from kvtune.study.trials import Ledger

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (demo_model_path() / "model.safetensors").exists(),
        reason=f"the demo model's weights are not in {demo_model_path()}",
    ),
]

IMAGES, TRIALS = 8, 3
STUDIES = {"kvsmooth": "demo-kvsmooth", "pai": "demo-pai", "kvsmooth+pai": "demo-kvsmooth-pai"}


def kvtune(capsys: pytest.CaptureFixture[str], *words: Any) -> str:
    counts = ["--images", IMAGES, "--holdout-images", 4, "--trials", TRIALS, "--max-new-tokens", 40]
    how = ["--parallel-trials", TRIALS]
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in (*words, "--model", "demo", "--dtype", "float32", *counts, *how, "--json")])
    out, err = capsys.readouterr()
    assert not ended.value.code, err
    return out


def test_studies_are_those_of_separate_searches(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts: list[int] = []
    run = Captioner.run

    def counting(self: Captioner, requests: Any, on_work: Any = lambda work: None) -> Any:
        seen = [0]

        def worked(work: Any) -> None:
            seen[0] = work.prompts
            on_work(work)

        yield from run(self, requests, worked)
        prompts.append(seen[0])

    monkeypatch.setattr(Captioner, "run", counting)
    document = json.loads(
        kvtune(capsys, "tournament", "--methods", ",".join(STUDIES), "--studies-dir", tmp_path / "together")
    )
    assert [each["study"] for each in document["methods"]] == list(STUDIES.values())
    # The baseline, one round of all studies, the held-out images: all fit side by side, each prompt is run once.
    assert prompts == [IMAGES, IMAGES, 4]
    for method, name in STUDIES.items():
        kvtune(capsys, "search", "--method", method, "--studies-dir", tmp_path / "alone")
        ours, other = (StudyFolder(tmp_path / where / name) for where in ("together", "alone"))
        assert Ledger(ours.ledger).trials == Ledger(other.ledger).trials
        assert Ledger(ours.ledger).baseline == Ledger(other.ledger).baseline
        for number in (None, *range(TRIALS)):
            assert read_captions(ours.trial_captions(number)) == read_captions(other.trial_captions(number))
