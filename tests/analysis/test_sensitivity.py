"""``kvtune sensitivity``: sweeps around a trial, and what matters."""

import json
import random
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_search import LAYERS, PUBLISHED, caption_text, fake_images
from scored_studies import fake_engine, scored_study
from small_coco import write_coco

import kvtune.study.rescore as rescoring
from kvtune.analysis.export import export
from kvtune.analysis.importance import importance
from kvtune.analysis.sensitivity import sensitivity, sweep_values
from kvtune.analysis.summarize import summarize
from kvtune.chair import ChairScorer, load_ground_truth
from kvtune.cli.main import main
from kvtune.errors import KvtuneError, RequestError
from kvtune.methods import get_method
from kvtune.presets import load_preset
from kvtune.spaces import Range, default_space
from kvtune.statistics.front import dominates
from kvtune.study.manifest import load_manifest
from kvtune.study.study_folder import StudyFolder
from kvtune.study.trials import Ledger, Trial

IMAGES = [image_id for image_id, _ in fake_images(20)]


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("data") / "coco", "val2014", IMAGES)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    return fake_engine(monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    return scored_study(tmp_path / "studies" / "mine", images=20, trials=12)


def test_each_point_is_the_setting_with_one_value_changed(
    folder: StudyFolder, engine: SimpleNamespace, coco: Path
) -> None:
    found = sensitivity(folder, coco, "trial:0", points=4)
    assert found.around == PUBLISHED and found.trial == 0
    assert found.complete == sum(trial.state == "complete" for trial in Ledger(folder.ledger).trials) == 12
    assert [sweep.parameter for sweep in found.sweeps] == list(load_manifest(folder).fingerprint.space.parameters)
    scorer = ChairScorer(load_ground_truth(folder.ground_truth))
    paid = 0
    for sweep in found.sweeps:
        values = [point.value for point in sweep.points]
        assert values == sorted(set(values)) and PUBLISHED[sweep.parameter] in values
        for point in sweep.points:
            method = get_method("kvsmooth").from_parameters(PUBLISHED | {sweep.parameter: point.value})
            texts = [{"image_id": i, "caption": caption_text(i, method)} for i in IMAGES]
            score = scorer.score(texts)
            assert (point.metrics["chair_s"], point.metrics["f1"]) == (score.chair_s, score.f1)
            low, high = point.intervals["f1"]
            assert low <= score.f1 <= high
            if point.value == PUBLISHED[sweep.parameter]:
                assert point.trial == 0
            paid += point.trial is None
    assert len(engine.asked) == len(set(engine.asked)) == paid * len(IMAGES)
    assert found.baseline["f1"] == scorer.score([{"image_id": i, "caption": caption_text(i, None)} for i in IMAGES]).f1


def test_a_caption_is_paid_for_once(folder: StudyFolder, engine: SimpleNamespace, coco: Path) -> None:
    engine.stop_after = 30
    with pytest.raises(KeyboardInterrupt):
        sensitivity(folder, coco, "trial:0", ["lambda_ref"], 5)
    engine.stop_after = None
    found = sensitivity(folder, coco, "trial:0", ["lambda_ref"], 5)
    asked = len(engine.asked)
    assert asked == sum(point.trial is None for point in found.sweeps[0].points) * len(IMAGES)
    assert sensitivity(folder, coco, "trial:0", ["lambda_ref"], 5) == found
    assert len(engine.asked) == asked
    assert json.loads((folder.report / "sensitivity.json").read_text()) == found.model_dump(mode="json")
    assert len(Ledger(folder.ledger).trials) == 12, "sweeps are no trials"


def test_a_setting_that_dominates_the_front_is_marked_and_can_be_exported(
    folder: StudyFolder, engine: SimpleNamespace, coco: Path, tmp_path: Path
) -> None:
    with pytest.raises(RequestError, match=r"nothing of mine was varied; run kvtune sensitivity /\S+/mine first"):
        export(folder, "sensitivity:lambda_ref=0.5")
    found = sensitivity(folder, coco, "trial:0", ["lambda_ref"], 5)
    summary = summarize(folder)
    points = {number: summary.trials[number].point for number in summary.front}
    for point in found.sweeps[0].points:
        here = point.metrics.chair_s, point.metrics.f1
        assert point.dominates == [number for number, there in points.items() if there and dominates(here, there)]
    better = next(point for point in found.sweeps[0].points if point.dominates)
    assert better.trial is None, "none on the front dominates another"
    preset, selection = export(folder, f"sensitivity:lambda_ref={better.value:g}")
    assert preset.parameters == PUBLISHED | {"lambda_ref": better.value} and selection.trial.number is None
    assert preset.metrics is not None and preset.study is not None
    assert preset.metrics.tune["f1"] == better.metrics.f1 and preset.metrics.holdout is None
    assert (preset.study.trial, preset.name) == (None, f"mine-lambda_ref-{better.value:g}")
    preset.save(tmp_path / "preset.json")
    assert load_preset(tmp_path / "preset.json") == preset
    assert export(folder, "sensitivity:lambda_ref=0.7")[1].trial.number == 0
    with pytest.raises(RequestError, match=r"did not try 'lambda_ref=7'; lambda_ref was 0, 0\.25, 0\.5, "):
        export(folder, "sensitivity:lambda_ref=7")


def test_a_setting_is_not_exported_with_scores_of_another_truth(
    folder: StudyFolder, engine: SimpleNamespace, coco: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its scores would stand beside a baseline's that are no others than rescore's."""
    sensitivity(folder, coco, "trial:0", ["lambda_ref"], 2)
    asked = len(engine.asked)
    monkeypatch.setattr(rescoring, "truth_from_coco", lambda coco, manifest: {image_id: {"dog"} for image_id in IMAGES})
    rescoring.rescore_study(folder, coco)
    with pytest.raises(RequestError, match="against another ground truth than mine has now; run it again, no caption"):
        export(folder, "sensitivity:lambda_ref=0")
    found = sensitivity(folder, coco, "trial:0", ["lambda_ref"], 2)
    preset, _ = export(folder, "sensitivity:lambda_ref=0")
    assert preset.metrics is not None and preset.metrics.tune["f1"] == found.sweeps[0].points[0].metrics.f1
    assert len(engine.asked) == asked


def test_values_of_a_sweep(folder: StudyFolder) -> None:
    space = load_manifest(folder).fingerprint.space

    def values(name: str, points: int = 5, **changed: Any) -> list[Any]:
        return sweep_values(space.parameters[name], (PUBLISHED | changed)[name], points)

    assert values("lambda_ref") == [0.0, 0.25, 0.5, 0.7, 0.75, 1.0]
    assert values("start_layer", 99) == [0, 1, 2, 3]  # the space's, not the model's
    assert values("end_layer", 99) == [4, 5, 6, 7, 8] and LAYERS == 8
    assert values("end_layer", 2) == [4, 7, 8]
    assert values("queue_length", 9) == [2, 4, 8, 15, 16, 32, 64]
    assert all(type(value) is int for value in values("queue_length"))
    assert values("clip_width", 2, clip_width=0.3) == [0.0, 0.3, 0.5]
    # Of values between ends, and of the one that is held, none differs by rounding alone: it would be captioned again.
    assert sweep_values(Range(low=0.0, high=1.0), 0.3, 11) == pytest.approx([tenth / 10 for tenth in range(11)])


def test_importance_finds_what_matters_and_its_direction() -> None:
    space = default_space("kvsmooth", LAYERS).fitted(LAYERS)
    trials = []
    for number in range(60):
        strength, width = (number * 7 % 21) / 20, (number * 3 % 11) / 20
        params = PUBLISHED | {"lambda_ref": round(strength, 2), "clip_width": round(width, 2)}
        # CHAIR_S depends on lambda_ref alone; F1 is high, which is good, for wide clipping alone.
        metrics = {"chair_s": 50 - 30 * strength, "f1": 40 + 60 * width}
        trials.append(Trial(number, params, state="complete", metrics=metrics))
    found = importance(trials, space)
    assert found is not None
    for objective, name in {"chair_s": "lambda_ref", "f1": "clip_width"}.items():
        shares, p_values = found.shares[objective], found.p_values[objective]
        assert max(shares, key=shares.__getitem__) == name
        assert sum(shares.values()) == pytest.approx(1) and set(shares) == set(space.parameters) == set(p_values)
        assert p_values[name] <= 0.05 and all(p_values[other] > 0.05 for other in p_values if other != name)
    others = [replace(trials[0], state="raced"), Trial(30, PUBLISHED, state="failed")]
    assert importance([*trials[:29], *others], space) is None and importance(trials[:30], space) is not None


def test_f1_is_maximised() -> None:
    """Only high F1 is concentrated in a parameter here; low F1 is everywhere."""
    space = default_space("kvsmooth", LAYERS).fitted(LAYERS)
    trials = []
    for number in range(80):
        strength, width = (number * 7 % 21) / 20, (number * 3 % 11) / 20
        f1 = 90.0 if strength > 0.85 else 30.0 + number % 7
        f1 -= 25.0 if width == 0 and strength <= 0.85 else 0
        params = PUBLISHED | {"lambda_ref": round(strength, 2), "clip_width": round(width, 2)}
        trials.append(Trial(number, params, state="complete", metrics={"chair_s": 50.0 + number, "f1": f1}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nobody need be told that low is taken for good: the sign is turned
        found = importance(trials, space)
    assert found is not None and found.shares["f1"]["lambda_ref"] > found.shares["f1"]["clip_width"]


def test_where_nothing_matters_nothing_is_called_important(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four studies of noise: shares sum to 1 all the same, and some are twice a fifth."""
    monkeypatch.setattr("kvtune.analysis.importance.SHUFFLES", 19)
    space = default_space("kvsmooth", LAYERS).fitted(LAYERS)
    draw = random.Random(5)
    largest, sure = [], 0
    for _ in range(4):
        trials = [
            Trial(
                number,
                PUBLISHED | {"lambda_ref": draw.randint(0, 20) / 20, "clip_width": draw.randint(0, 10) / 20},
                state="complete",
                metrics={"chair_s": draw.gauss(40, 2), "f1": draw.gauss(75, 1)},
            )
            for number in range(75)
        ]
        found = importance(trials, space)
        assert found is not None
        largest += [max(shares.values()) for shares in found.shares.values()]
        sure += sum(min(p_values.values()) <= 0.05 for p_values in found.p_values.values())
    assert max(largest) > 0.38
    assert sure <= 1  # of 8, at 5 %


def test_wrong_requests(folder: StudyFolder, engine: SimpleNamespace, coco: Path) -> None:
    with pytest.raises(RequestError, match="'target' was not searched in mine; it has lambda_ref, "):
        sensitivity(folder, coco, parameters=["target"])
    with pytest.raises(RequestError, match="--points must be at least 2"):
        sensitivity(folder, coco, points=1)
    with pytest.raises(RequestError, match="has no trial '99'"):
        sensitivity(folder, coco, "trial:99")
    folder.trial_captions(0).unlink()
    with pytest.raises(KvtuneError, match=r"trial-0000.jsonl has no caption of image .*kvtune search"):
        sensitivity(folder, coco, "trial:0")
    assert engine.asked == []


def test_the_command(
    folder: StudyFolder, engine: SimpleNamespace, coco: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["sensitivity", "mine", "--select", "trial:0", "--parameter", "lambda_ref", "--parameter", "end_layer"]
    arguments += ["--points", "3", "--coco", str(coco), "--studies-dir", str(folder.path.parent)]
    for more in ([], ["--json"]):
        with pytest.raises(SystemExit) as ended:
            main([*arguments, *more])
        out, err = capsys.readouterr()
        assert not ended.value.code, err
        if not more:
            assert "lambda_ref" in out and "held" in out and "Importance: not before 30 complete trials" in out
            told = " ".join(out.split())
            assert f"kvtune export {folder.path} --select sensitivity:" in told and "--enqueue lambda_ref=" in told
        else:
            assert [sweep["parameter"] for sweep in json.loads(out)["sweeps"]] == ["lambda_ref", "end_layer"]
    assert {path.name for path in folder.report.glob("sensitivity.*")} == {
        f"sensitivity.{kind}" for kind in ("json", "csv", "png", "svg")
    }
    assert (folder.report / "sensitivity.csv").read_text().startswith("parameter,value,trial,")
