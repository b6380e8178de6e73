"""From a study to a preset."""

from pathlib import Path

import pytest
from fake_search import LAYERS, new_study, run_search

from kvtune.analysis.export import export
from kvtune.analysis.summarize import summarize
from kvtune.chair import METRICS
from kvtune.errors import KvtuneError, RequestError
from kvtune.presets import load_preset
from kvtune.study.study_folder import StudyFolder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    import sys
    from types import SimpleNamespace

    from fake_search import FakeRequest

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "kvtune.captioning", SimpleNamespace(CaptionRequest=FakeRequest))
        made, manifest = new_study(tmp_path_factory.mktemp("studies") / "my-study", images=20)
        run_search(made, manifest, 8)
    return made


def test_a_preset_says_where_it_comes_from(folder: StudyFolder, tmp_path: Path) -> None:
    summary = summarize(folder)
    preset, selection = export(folder, "min-chair")
    best = min(summary.trials, key=lambda trial: (trial.rate("chair_s"), -(trial.rate("f1") or 0)))
    assert selection.trial == best
    assert (preset.source, preset.schema_version) == ("search", 1)
    assert preset.parameters == best.params == preset.method().parameters()
    assert preset.selection is not None and (preset.selection.rule, preset.selection.on) == ("lowest CHAIR_S", "tune")
    assert preset.study is not None and (preset.study.name, preset.study.trial) == ("my-study", best.number)
    assert preset.metrics is not None and preset.metrics.holdout is None
    assert best.scores is not None and summary.baseline.scores is not None
    for name in (*METRICS, "images"):
        assert preset.metrics.tune[name] == getattr(best.scores, name)
        assert preset.metrics.baseline[name] == getattr(summary.baseline.scores, name)
    assert preset.subset is not None and (preset.subset.name, preset.subset.images) == ("tune", 20)
    assert (preset.model.family, preset.model.id, preset.model.layers) == ("fake", "fake", LAYERS)
    assert (preset.generation.prompt, preset.generation.max_new_tokens) == ("Describe.", 64)
    assert preset.generation.dtype == "float32"
    assert "kvtune" in preset.versions
    assert preset.versions["device"] == "cpu"
    preset.save(tmp_path / "preset.json")
    assert load_preset(tmp_path / "preset.json") == preset


def test_the_default_rule_is_named_in_the_preset(folder: StudyFolder) -> None:
    preset, selection = export(folder)
    assert preset.selection is not None
    assert preset.selection.rule == selection.rule == "lowest CHAIR_S whose F1 is at least the baseline's"


def test_every_rule_is_offered(folder: StudyFolder) -> None:
    line = r"no 'sensitivty', did you mean 'sensitivity:NAME=VALUE'\? write one of keep-f1, .*, sensitivity:NAME=VALUE$"
    with pytest.raises(RequestError, match=line):
        export(folder, "sensitivty")


def test_a_trial_by_number(folder: StudyFolder) -> None:
    preset, _ = export(folder, "trial:0")
    assert preset.selection is not None and preset.selection.rule == "trial:0"
    with pytest.raises(RequestError, match="has no trial '8'; its trials are 0 to 7"):
        export(folder, "trial:8")


def test_nothing_searched_yet(tmp_path: Path) -> None:
    empty, _ = new_study(tmp_path / "empty")
    with pytest.raises(KvtuneError, match="no complete trial"):
        export(empty)
