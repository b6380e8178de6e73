"""``kvtune tournament`` with a model that is quick: ordinary studies, one baseline, who is better beyond doubt."""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_search import FakeCaptioner, FakeRequest
from small_coco import write_coco

from kvtune.captioning import cost_model
from kvtune.cli.main import main
from kvtune.errors import RequestError
from kvtune.methods import method_names
from kvtune.models.options import ModelOptions
from kvtune.search import tournament as tournament_module
from kvtune.statistics.paired import holm

pytestmark = pytest.mark.usefixtures("without_optuna")


@pytest.fixture(autouse=True)
def seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> SimpleNamespace:
    """What was asked of the captioner that stands in for the engine's."""
    seen = SimpleNamespace(baseline=0, unable=(), opened=0, failing=None, given=0, stop_after=None)
    vlm = SimpleNamespace(
        name="quick",
        model_id="/models/quick",
        revision=None,
        family=SimpleNamespace(name="quick"),
        n_layers=16,
        dtype_name="float32",
        device_name="cpu",
        default_prompt="Describe.",
        published_preset=None,
    )

    class Captioner(FakeCaptioner):
        def __init__(self, options: ModelOptions, prompt: str | None, max_new_tokens: int, on_note: Any) -> None:
            super().__init__()
            self.vlm = vlm
            seen.opened += 1

        def check(self, method: Any) -> None:
            if method.name in seen.unable:
                raise RequestError(f"{method.name} cannot serve")

        def finish(self, batch: list[Any]) -> Any:
            if any(request.method is not None and request.method.name == seen.failing for request in batch):
                raise ValueError("no such thing")
            seen.baseline += sum(request.method is None for request in batch)
            for caption in super().finish(batch):
                if seen.given == seen.stop_after:
                    raise KeyboardInterrupt
                seen.given += 1
                yield caption

    models = SimpleNamespace(
        locate=lambda name: (None, vlm.model_id, name), commit_of=lambda name, revision=None: revision
    )
    assert tournament_module and cost_model, "imported before what they are in is replaced"
    monkeypatch.setitem(sys.modules, "kvtune.models", models)
    captioning = SimpleNamespace(CaptionRequest=FakeRequest, open_captioner=Captioner)
    monkeypatch.setitem(sys.modules, "kvtune.captioning", captioning)
    monkeypatch.setattr(os, "fsync", lambda file: None)
    monkeypatch.chdir(tmp_path)
    write_coco(tmp_path / "coco", "val2014", list(range(1, 81)))
    return seen


def kvtune(capsys: pytest.CaptureFixture[str], *words: Any) -> tuple[int, str, str]:
    common = ["--model", "quick", "--coco", "coco", "--images", 12, "--holdout-images", 40, "--parallel-trials", 4]
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in [*words, *common]])
    shown, err = capsys.readouterr()
    return int(ended.value.code or 0), shown, err


def trials(study: Path) -> list[Any]:
    lines = [json.loads(line) for line in (study / "trials.jsonl").read_text().splitlines()]
    return [line for line in lines if "params" in line or "metrics" in line]


def test_each_study_is_the_one_that_a_search_makes(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, seen: SimpleNamespace
) -> None:
    code, shown, err = kvtune(
        capsys, "tournament", "--methods", "kvsmooth,pai,kvsmooth+pai", "--trials", 5, "--name", "cup", "--json"
    )
    assert code == 0, err
    assert seen.baseline == 12 + 40, "written once, for all three"
    document = json.loads(shown)
    assert [each["study"] for each in document["methods"]] == ["cup-kvsmooth", "cup-pai", "cup-kvsmooth-pai"]
    assert document["left_out"] == {}
    for method, study in (("kvsmooth", "cup-kvsmooth"), ("pai", "cup-pai"), ("kvsmooth+pai", "cup-kvsmooth-pai")):
        code, _, err = kvtune(
            capsys, "search", "--method", method, "--trials", 5, "--studies-dir", "alone", "--study", study
        )
        assert code == 0, err
        assert len(trials(tmp_path / "alone" / study)) >= 5
        assert trials(tmp_path / "alone" / study) == trials(tmp_path / "studies" / study)
        for file in (tmp_path / "alone" / study / "captions").glob("trial*.jsonl"):
            ours = tmp_path / "studies" / study / "captions" / file.name
            assert sorted(file.read_text().splitlines()) == sorted(ours.read_text().splitlines())


def test_pairs_and_their_verdicts(capsys: pytest.CaptureFixture[str]) -> None:
    code, shown, err = kvtune(capsys, "tournament", "--methods", "clvs,pai", "--trials", 6, "--json")
    assert code == 0, err
    document = json.loads(shown)
    there = [each["method"] for each in document["methods"] if each["chosen"] is not None]
    compared = ["baseline", *there]
    assert len(document["pairs"]) == len(compared) * (len(compared) - 1) // 2
    rates = {each["method"]: each["metrics"] for each in document["methods"]} | {
        "baseline": document["baseline"]["metrics"]
    }
    for pair in document["pairs"]:
        for metric, difference in pair["differences"].items():
            assert difference["value"] == pytest.approx(rates[pair["one"]][metric] - rates[pair["other"]][metric])
            low, high = difference["interval"]
            clear = (low > 0 or high < 0) and difference["p_adjusted"] < 0.05
            assert (pair["verdict"][metric] != "unclear") == clear
    for metric in ("chair_s", "f1"):
        found = [pair["differences"][metric] for pair in document["pairs"]]
        assert [each["p_adjusted"] for each in found] == holm([each["p_value"] for each in found])
    for each in document["methods"]:
        assert each["captions"] >= 6 * 10 and each["tokens"] > each["captions"]


def test_a_study_that_was_begun_otherwise_is_named_with_the_option_that_names_another(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["tournament", "--methods", "kvsmooth,pai", "--trials", 1]
    assert kvtune(capsys, *words)[0] == 0
    code, _, err = kvtune(capsys, *words, "--seed", 3)
    assert code == 2
    assert "give --seed 0, or another --name: study quick-kvsmooth was begun with seed 0, but this command has 3" in err


def test_the_same_command_goes_on(capsys: pytest.CaptureFixture[str], tmp_path: Path, seen: SimpleNamespace) -> None:
    words = ["tournament", "--methods", "kvsmooth,pai", "--json"]
    assert kvtune(capsys, *words, "--trials", 2)[0] == 0
    baseline = seen.baseline
    # As if it had been stopped between the two searches.
    study = tmp_path / "studies" / "quick-pai"
    (study / "report" / "validation.json").unlink()
    code, shown, err = kvtune(capsys, *words, "--trials", 4)
    assert code == 0, err
    assert seen.baseline == baseline
    assert len(list((study / "captions").glob("trial-*.jsonl"))) == 4
    code, again, _ = kvtune(capsys, *words, "--trials", 4)
    first, second = json.loads(shown), json.loads(again)
    assert code == 0 and second["pairs"] == first["pairs"]


def test_a_study_that_fails_is_told_and_goes_on_with_the_next_command(
    capsys: pytest.CaptureFixture[str], seen: SimpleNamespace
) -> None:
    words = ["tournament", "--methods", "kvsmooth,pai", "--trials", 4, "--json"]
    seen.failing = "pai"
    code, shown, err = kvtune(capsys, *words)
    document = json.loads(shown)
    assert code == 1 and "pai stopped midway, and is not compared; the same command goes on" in err
    assert [each["method"] for each in document["methods"]] == ["kvsmooth"]
    assert "failed one after the other" in document["failed"]["pai"]
    seen.failing = None
    code, shown, err = kvtune(capsys, *words)
    assert code == 0, err
    assert [each["method"] for each in json.loads(shown)["methods"]] == ["kvsmooth", "pai"]
    assert json.loads(shown)["failed"] == {}
    assert seen.baseline == 12 + 40 + 1, "once for both, and one caption to see that it is not the model that fails"
    seen.failing = "clvs"
    code, shown, err = kvtune(capsys, "tournament", "--methods", "clvs,clvs+pai", "--trials", 4, "--seed", 1, "--json")
    assert code == 1 and json.loads(shown)["failed"].keys() == {"clvs"}


def test_what_is_stopped_goes_on_and_no_caption_is_written_twice(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, seen: SimpleNamespace
) -> None:
    words = ["tournament", "--methods", "kvsmooth,pai", "--trials", 6, "--json"]
    assert kvtune(capsys, *words, "--studies-dir", "whole")[0] == 0
    whole, seen.given = seen.given, 0
    for seen.stop_after in (5, 40, 100, whole - 10):
        code, _, err = kvtune(capsys, *words, "--studies-dir", "stopped")
        assert code == 130 and "no caption is lost. Go on with: kvtune" in err
    seen.stop_after = None
    assert kvtune(capsys, *words, "--studies-dir", "stopped")[0] == 0
    assert seen.given == whole, "each caption that came was kept"
    for study in ("quick-kvsmooth", "quick-pai"):
        assert trials(tmp_path / "whole" / study) == trials(tmp_path / "stopped" / study)
        for file in (tmp_path / "whole" / study / "captions").rglob("*.jsonl"):
            other = tmp_path / "stopped" / file.relative_to(tmp_path / "whole")
            assert sorted(file.read_text().splitlines()) == sorted(other.read_text().splitlines())


def test_table_and_picture(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, shown, err = kvtune(
        capsys, "tournament", "--methods", "kvsmooth,middle_layers", "--trials", 3, "--out", "drawn"
    )
    assert code == 0, err
    assert max(map(len, shown.splitlines())) <= 80
    for word in ("baseline", "kvsmooth", "middle_layers", "CHAIR_S", "captions", "held-out"):
        assert word in shown
    assert (tmp_path / "drawn" / "tournament.png").stat().st_size > 0


def test_all_leaves_out_what_cannot_serve(capsys: pytest.CaptureFixture[str], seen: SimpleNamespace) -> None:
    seen.unable = tuple(set(method_names()) - {"ad_hh", "kvsmooth", "pai"})
    code, shown, err = kvtune(capsys, "tournament", "--methods", "all", "--trials", 1, "--json")
    assert code == 0, err
    document = json.loads(shown)
    assert [each["method"] for each in document["methods"]] == ["kvsmooth", "pai"]
    assert document["left_out"].keys() == {"ad_hh", *seen.unable}
    assert document["left_out"]["clvs"] == "clvs cannot serve"


@pytest.mark.parametrize(
    ("methods", "says"),
    [
        ("kvsmooth", "two or more names"),
        ("kvsmooth,pai,pai", "a method twice"),
        ("kvsmooth,pia", "unknown method 'pia'"),
        ("kvsmooth,pai+pai", "pai twice"),
        ("kvsmooth,ad_hh", "needs heads"),
        ("kvsmooth,clvs", "clvs cannot serve"),
    ],
)
def test_wrong_requests_begin_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, seen: SimpleNamespace, methods: str, says: str
) -> None:
    seen.unable = ("clvs",)
    code, shown, err = kvtune(capsys, "tournament", "--methods", methods, "--trials", 1)
    assert (code, shown) == (2, "")
    assert says in err.splitlines()[-1]
    assert not (tmp_path / "studies").exists()


def test_another_budget_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert kvtune(capsys, "search", "--method", "pai", "--trials", 3)[0] == 0
    words = ("tournament", "--methods", "kvsmooth,pai,vaf", "--trials")
    code, shown, err = kvtune(capsys, *words, 2)
    assert code == 0, err
    assert "Not the same budget: kvsmooth 2, pai 3, vaf 2 finished trials" in " ".join(shown.split())
    document = json.loads(kvtune(capsys, *words, 2, "--json")[1])
    assert [each["trials"] for each in document["methods"]] == [2, 3, 2]
    assert "the same budget" not in " ".join(kvtune(capsys, *words, 3)[1].split())


def test_a_method_with_a_space_of_its_own_takes_part(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    space = "method: ad_hh\nparameters: {threshold: {low: 0.1, high: 0.9, step: 0.1}}\nfixed: {heads: [[3, 1]]}\n"
    (tmp_path / "space.yaml").write_text(space)
    assert kvtune(capsys, "search", "--method", "ad_hh", "--space", "space.yaml", "--trials", 1)[0] == 0
    code, shown, err = kvtune(capsys, "tournament", "--methods", "kvsmooth,ad_hh", "--trials", 2, "--json")
    assert code == 0, err
    assert [each["method"] for each in json.loads(shown)["methods"]] == ["kvsmooth", "ad_hh"]
