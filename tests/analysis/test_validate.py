"""``kvtune validate``: what was found, on images that took no part; and what presets say of it."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_search import FakeCaptioner, caption_text, fake_images
from scored_studies import HOLDOUT, fake_engine, scored_study
from small_coco import write_coco

from kvtune.analysis.export import export
from kvtune.analysis.held_out import load_validation
from kvtune.analysis.summarize import summarize
from kvtune.analysis.validate import validate
from kvtune.chair import ChairScorer, load_ground_truth
from kvtune.cli.main import main
from kvtune.coco.subset import ids_sha256
from kvtune.errors import KvtuneError, RequestError
from kvtune.methods import get_method
from kvtune.models.options import EngineOptions, ModelOptions
from kvtune.presets import load_preset
from kvtune.spaces import SearchSpace
from kvtune.statistics.bootstrap import Bootstrap
from kvtune.statistics.paired import holm, mcnemar
from kvtune.study.caption_log import read_captions
from kvtune.study.lock import locked
from kvtune.study.manifest import load_manifest
from kvtune.study.rescore import rescore_study
from kvtune.study.study_folder import StudyFolder


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco(tmp_path_factory.mktemp("data") / "coco", "val2014", HOLDOUT)


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    return fake_engine(monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> StudyFolder:
    return scored_study(tmp_path / "studies" / "mine", trials=8)


def test_every_held_out_number_follows_from_the_captions(
    folder: StudyFolder, engine: SimpleNamespace, coco: Path
) -> None:
    found = validate(folder, coco)
    assert load_validation(folder) == found
    summary = summarize(folder)
    numbers = [setting.number for setting in found.settings]
    assert numbers == [None, 0, *(number for number in summary.front if number != 0)]
    assert found.settings[0].roles == ["baseline"] and "published" in found.settings[1].roles
    assert {setting.number for setting in found.settings if "front" in setting.roles} == set(summary.front)
    assert engine.opened == [ModelOptions("fake", "float32")]

    scorer = ChairScorer(load_ground_truth(folder.ground_truth))
    tables = {}
    for setting in found.settings:
        method = None if setting.number is None else get_method("kvsmooth").from_parameters(setting.params)
        lines = read_captions(folder.captions / "holdout" / f"{setting.name}.jsonl")
        assert {image_id: line["caption"] for image_id, line in lines.items()} == {
            image_id: caption_text(image_id, method) for image_id in HOLDOUT
        }
        ordered = [lines[image_id] for image_id in HOLDOUT]
        score = scorer.score(ordered)
        assert (setting.holdout.metrics["chair_s"], setting.holdout.metrics["f1"]) == (score.chair_s, score.f1)
        tables[setting.number] = scorer.counts(ordered).table
    others = found.settings[1:]
    p_values = [mcnemar(tables[setting.number][:, 1], tables[None][:, 1]) for setting in others]
    bootstrap = Bootstrap(list(tables.values()))
    for index, (setting, p_value, adjusted) in enumerate(zip(others, p_values, holm(p_values), strict=True), 1):
        entry = setting.holdout.differences["chair_s"]
        assert (entry.p_value, entry.p_adjusted) == (p_value, adjusted)
        assert (entry.value, entry.interval) == bootstrap.difference("chair_s", index, 0)
        trial = summary.trials[setting.number or 0]
        assert setting.tune is not None and setting.tune.metrics["f1"] == trial.rate("f1")
        for metric in ("chair_s", "f1"):
            before = trial.rate(metric) - summary.baseline.rate(metric)
            assert setting.shrinkage[metric] == pytest.approx(setting.holdout.differences[metric].value - before)
    assert found.settings[0].shrinkage == {} and found.settings[0].holdout.differences == {}


def test_a_caption_is_paid_for_once(folder: StudyFolder, engine: SimpleNamespace, coco: Path) -> None:
    engine.stop_after = 41
    with pytest.raises(KeyboardInterrupt):
        validate(folder, coco)
    assert not folder.validation.exists()
    engine.stop_after = None
    seen: list[tuple[int, int]] = []
    found = validate(folder, coco, on_progress=lambda pace: seen.append((pace.there, pace.total)))
    assert len(engine.asked) == len(set(engine.asked)) == len(HOLDOUT) * len(found.settings)
    assert seen[0][0] >= 41 and seen[-1][0] == seen[-1][1] == len(engine.asked)
    assert validate(folder, Path("/no such coco")) == found
    assert len(engine.opened) == 2, "no model is needed where nothing is missing"


class OneVoice(FakeCaptioner):
    """Writes the same with every method but none, as a method does that never acts."""

    def finish(self, batch: list[Any]) -> Iterator[Any]:
        for request in batch:
            request = replace(request, method=None)
            yield from super().finish([request])


def test_settings_that_wrote_the_same_captions_are_validated_once(
    tmp_path: Path, engine: SimpleNamespace, coco: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = scored_study(tmp_path / "studies" / "mine", trials=8, captioner=OneVoice())
    assert summarize(folder).front == list(range(8))
    found = validate(folder, coco)
    assert [(each.number, each.same_captions) for each in found.settings] == [(None, []), (0, list(range(1, 8)))]
    assert len(engine.asked) == 2 * len(HOLDOUT)
    assert export(folder)[1].trial.number == 0, "the choice is the one that was validated"
    with pytest.raises(SystemExit):
        main(["validate", "mine", "--studies-dir", str(tmp_path / "studies"), "--coco", str(coco)])
    said = " ".join(capsys.readouterr().out.split())
    assert "Trial 0 stands for 1, 2, 3, 4, 5, 6, 7 too, which wrote the same captions on the tune images" in said


def test_captions_of_which_no_digest_is_known_are_taken_for_their_own(
    tmp_path: Path, engine: SimpleNamespace, coco: Path
) -> None:
    folder = scored_study(tmp_path / "studies" / "mine", trials=4, captioner=OneVoice())
    lines = [json.loads(line) for line in folder.ledger.read_text().splitlines()]
    older = [json.dumps({key: value for key, value in line.items() if key != "captions"}) for line in lines]
    folder.ledger.write_text("".join(line + "\n" for line in older))
    assert [each.number for each in validate(folder, coco).settings] == [None, 0, 1, 2, 3]


def test_held_out_results_choose_nothing(folder: StudyFolder, engine: SimpleNamespace, coco: Path) -> None:
    before = [export(folder, rule)[1].trial for rule in ("min-chair", "max-f1", "knee")], summarize(folder)
    validate(folder, coco)
    after = [export(folder, rule)[1].trial for rule in ("min-chair", "max-f1", "knee")], summarize(folder)
    assert after[0] == before[0] and replace(after[1], validation=None) == before[1]


def test_a_summary_has_the_held_out_results_that_are_still_its_own(
    folder: StudyFolder, engine: SimpleNamespace, coco: Path
) -> None:
    assert summarize(folder).validation is None
    found = validate(folder, coco)
    assert summarize(folder).validation == found and summarize(folder, statistics=False).validation is None

    document = json.loads(folder.validation.read_text())
    document["settings"][-1]["params"]["lambda_ref"] = -1.0
    folder.validation.write_text(json.dumps(document))
    still = summarize(folder).validation
    assert still is not None and still.settings == found.settings[:-1]
    folder.validation.write_text(json.dumps(document | {"scoring": "another scorer"}))
    assert summarize(folder).validation is None


def test_results_from_before_a_metric_was_there_are_none(
    folder: StudyFolder, engine: SimpleNamespace, coco: Path
) -> None:
    validate(folder, coco)
    document = json.loads(folder.validation.read_text())
    for setting in document["settings"]:
        del setting["holdout"]["metrics"]["mean_words"]
    folder.validation.write_text(json.dumps(document))
    assert load_validation(folder) is None and summarize(folder).validation is None
    rescore_study(folder)
    with pytest.raises(RequestError, match=r"has no held-out results to select on; run kvtune validate /\S+/mine$"):
        export(folder, "min-chair", on="holdout")
    asked = len(engine.asked)
    assert load_validation(folder) != validate(folder, coco) == load_validation(folder)
    assert len(engine.asked) == asked, "no caption is written again"


def test_presets_carry_held_out_results_of_their_own_trial(
    folder: StudyFolder, engine: SimpleNamespace, coco: Path, tmp_path: Path
) -> None:
    found = validate(folder, coco)
    preset, selection = export(folder, "min-chair")
    setting = found.of(selection.trial.number)
    assert setting is not None and preset.metrics is not None and preset.metrics.holdout is not None
    holdout = preset.metrics.holdout
    assert holdout["chair_s"] == setting.holdout.metrics["chair_s"]
    assert holdout["baseline"] == found.settings[0].holdout.metrics.to_dict()
    assert holdout["subset"] == {"name": "holdout", "sha256": ids_sha256(HOLDOUT), "images": len(HOLDOUT)}
    assert set(holdout["verdict"]) == {"chair_s", "f1"} and "note" not in holdout
    preset.save(tmp_path / "preset.json")
    assert load_preset(tmp_path / "preset.json") == preset
    other = next(trial.number for trial in summarize(folder).trials if found.of(trial.number) is None)
    unvalidated, _ = export(folder, f"trial:{other}")
    assert unvalidated.metrics is not None and unvalidated.metrics.holdout is None


def test_selecting_on_held_out_is_stamped(folder: StudyFolder, engine: SimpleNamespace, coco: Path) -> None:
    with pytest.raises(RequestError, match=r"no held-out results to select on; run kvtune validate /\S+/mine$"):
        export(folder, "min-chair", "holdout")
    found = validate(folder, coco)
    other = next(trial.number for trial in summarize(folder).trials if found.of(trial.number) is None)
    with pytest.raises(RequestError, match=f"^trial {other} of mine was not validated; those that were are [0-9, ]+$"):
        export(folder, f"trial:{other}", "holdout")
    preset, selection = export(folder, "min-chair", "holdout")
    lowest = min(s.holdout.metrics["chair_s"] for s in found.settings if s.number is not None)
    assert selection.trial.rate("chair_s") == lowest
    assert preset.selection is not None and preset.selection.on == "holdout"
    assert "selected on held-out, estimate optimistic" in preset.selection.rule
    assert preset.metrics is not None and preset.metrics.holdout is not None
    assert preset.metrics.holdout["note"] == "selected on held-out, estimate optimistic"
    assert preset.metrics.tune["chair_s"] == summarize(folder).trials[selection.trial.number or 0].rate("chair_s")


@pytest.mark.parametrize("what", ["study", "images", "scorer", "parameters"])
def test_results_of_something_else_are_not_carried(
    folder: StudyFolder, engine: SimpleNamespace, coco: Path, what: str
) -> None:
    validate(folder, coco)
    data = json.loads(folder.validation.read_text())
    if what == "study":
        data["study_id"] = "another"
    elif what == "images":
        data["subset"]["sha256"] = "2" * 64
    elif what == "scorer":
        data["scoring"] = "another"
    else:
        for setting in data["settings"]:
            setting["params"] = setting["params"] | {"lambda_ref": 0.123}
    folder.validation.write_text(json.dumps(data))
    preset, _ = export(folder, "min-chair")
    assert preset.metrics is not None and preset.metrics.holdout is None
    with pytest.raises(RequestError, match=r"kvtune validate /\S+/mine$"):
        export(folder, "min-chair", "holdout")


def test_a_published_preset_outside_the_space_is_validated_too(
    tmp_path: Path, engine: SimpleNamespace, coco: Path
) -> None:
    layers = {"start_layer": {"low": 0, "high": 3}, "end_layer": {"low": 4, "high": 8}}
    space = SearchSpace(method="kvsmooth", parameters={"lambda_ref": {"low": 0.0, "high": 0.5}, **layers})
    folder = scored_study(tmp_path / "studies" / "narrow", space=space)
    manifest = load_manifest(folder)
    published = manifest.published[0].model_copy(update={"enqueued": False})
    manifest.model_copy(update={"published": [published]}).save(folder.manifest)
    lines = [json.loads(line) for line in folder.ledger.read_text().splitlines()]
    folder.ledger.write_text(
        "".join(json.dumps(line | ({"published": False} if "published" in line else {})) + "\n" for line in lines)
    )
    found = validate(folder, coco)
    setting = found.settings[1]
    assert (setting.name, setting.number, setting.roles, setting.tune) == ("published", None, ["published"], None)
    assert setting.params == published.parameters and setting.holdout.differences and not setting.shrinkage
    assert (folder.captions / "holdout" / "published.jsonl").exists()
    assert found.of(None) is found.settings[0]


def test_what_cannot_be_validated_is_one_clear_line(
    folder: StudyFolder, engine: SimpleNamespace, coco: Path, tmp_path: Path
) -> None:
    with locked(folder.path), pytest.raises(RequestError, match="is in use by process"):
        validate(folder, coco)
    engine.revision = "newer"
    with pytest.raises(RequestError, match="at revision newer in float32; put the same weights there"):
        validate(folder, coco)
    engine.revision = None
    with pytest.raises(RequestError, match="--lanes must be auto"):
        validate(folder, coco, EngineOptions(lanes="0"))
    lines = [json.loads(line) for line in folder.ledger.read_text().splitlines()]
    folder.ledger.write_text(
        "".join(json.dumps(line | ({"scoring": "old"} if "scoring" in line else {})) + "\n" for line in lines)
    )
    with pytest.raises(KvtuneError, match=r"run kvtune rescore /\S+/mine first"):
        validate(folder, coco)
    assert engine.asked == []
    folder.validation.parent.mkdir(exist_ok=True)
    folder.validation.write_text('{"format": "kvtune-validation/1"}')
    with pytest.raises(RequestError, match=r"validation.json: the key 'study' is missing"):
        load_validation(folder)
    folder.ledger.write_text("")
    with pytest.raises(KvtuneError, match="no front to validate yet"):
        validate(folder, coco)


def test_a_caption_of_a_tune_image_among_the_held_out_is_refused(
    folder: StudyFolder, engine: SimpleNamespace, coco: Path
) -> None:
    validate(folder, coco)
    path = folder.holdout_captions("baseline")
    line = {"image_id": fake_images(1)[0][0], "caption": "x", "tokens": 1, "finish_reason": "eos"}
    path.write_text(path.read_text() + json.dumps(line) + "\n")
    with pytest.raises(KvtuneError, match="which is not asked for"):
        validate(folder, coco)


def run(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main([str(argument) for argument in arguments])
    return int(ended.value.code or 0), *capsys.readouterr()


def test_the_commands(
    folder: StudyFolder, engine: SimpleNamespace, coco: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    studies = ["--studies-dir", folder.path.parent]
    engine.stop_after = 3
    code, out, err = run(capsys, "validate", "mine", "--coco", coco, *studies)
    assert (code, out) == (130, "") and "no caption is lost" in err
    engine.stop_after = None
    code, out, err = run(capsys, "validate", "mine", "--coco", coco, *studies)
    assert code == 0, err
    assert f"{len(HOLDOUT)} held-out images" in out and "shrinkage" in out and "published" in out
    for setting in json.loads(folder.validation.read_text())["settings"][1:]:
        difference = setting["holdout"]["differences"]["chair_s"]
        unclear = difference["interval"][0] <= 0 <= difference["interval"][1] or difference["p_adjusted"] >= 0.05
        said = [text for text in out.replace("\n", " ").split("trial ") if "on held-out images:" in text]
        (line,) = [text for text in said if text.startswith(f"{setting['number']} ")]
        assert ("may be chance" in line.split("; F1")[0]) == unclear
    code, out, err = run(capsys, "validate", "mine", "--json", *studies)
    assert code == 0 and json.loads(out) == json.loads(folder.validation.read_text())
    to = tmp_path / "preset.json"
    code, out, err = run(
        capsys, "export", "mine", "--select", "max-f1", "--select-on", "holdout", "--out", to, *studies
    )
    assert code == 0 and "selected on held-out, estimate optimistic" in out and "held-out images: CHAIR_S" in out
    code, out, err = run(capsys, "validate", "nope", *studies)
    assert code == 2 and err.count("\n") == 1
