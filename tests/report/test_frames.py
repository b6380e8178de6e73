import io
import json

import pandas as pd
import pytest
from synthetic_studies import random_study, study, trial

from kvtune.analysis.selection import choose
from kvtune.errors import RequestError
from kvtune.report import facts, study_files
from kvtune.report.data.document import study_document
from kvtune.report.data.frames import trials_frame
from kvtune.report.data.overlay import paper_points


def test_one_row_for_the_baseline_and_each_trial():
    summary = random_study(12, raced=2, failed=1, running=1, width=2.0)
    frame = trials_frame(summary, chosen=summary.front[0])
    assert list(frame["kind"]) == ["baseline"] + ["trial"] * 12
    assert frame["number"].tolist()[1:] == list(range(12)) and pd.isna(frame["number"][0])
    assert frame.loc[frame["front"], "number"].tolist() == sorted(summary.front)
    assert frame.loc[frame["chosen"], "number"].tolist() == [summary.front[0]]
    first = summary.trials[0]
    row = frame.iloc[1]
    assert row["params_lambda_ref"] == first.params["lambda_ref"] and row["f1"] == first.rate("f1")
    assert (row["chair_s_low"], row["chair_s_high"]) == first.intervals["chair_s"]


def test_csv_reads_back_with_full_precision(tmp_path):
    summary = random_study(12, failed=2)
    (path,) = study_files.write_trials(tmp_path, summary, None)
    frame = pd.read_csv(path, float_precision="round_trip")
    pd.testing.assert_frame_equal(
        frame[["params_lambda_ref", "f1"]], trials_frame(summary)[["params_lambda_ref", "f1"]], check_exact=True
    )
    assert frame["number"].isna().tolist() == [True] + [False] * 12


def test_an_empty_study_has_all_columns():
    frame = trials_frame(study([], None))
    assert len(frame) == 0 and {"number", "state", "chair_s", "f1", "images"} <= set(frame.columns)


def test_parquet_has_the_same_data(tmp_path):
    pytest.importorskip("pyarrow", reason="Parquet needs the extra 'parquet'")
    summary = random_study(12, failed=2)
    _, parquet = study_files.write_trials(tmp_path, summary, None, parquet=True)
    pd.testing.assert_frame_equal(pd.read_parquet(parquet), trials_frame(summary))


def test_parquet_without_pyarrow_names_the_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RequestError, match=r"kvtune\[parquet\]"):
        study_files.check_parquet()


def test_the_document_is_json_with_the_promised_keys():
    summary = random_study(12, raced=1, failed=1, running=1, width=1.0)
    document = study_document(summary, choose(summary), paper_points(summary.model))
    document = json.loads(json.dumps(document, allow_nan=False))
    assert {"study", "baseline", "trials", "front", "hypervolume", "reference_point", "chosen"} <= set(document)
    keys = ["number", "params", "chair_s", "chair_i", "precision", "recall", "f1", "mean_words", "images", "state"]
    assert all(set(keys) <= set(entry) for entry in [document["baseline"], *document["trials"]])
    assert {entry["state"] for entry in document["trials"]} == {"complete", "raced", "failed", "running"}
    assert document["front"] == summary.front and document["baseline"]["number"] is None


def test_choice_follows_the_rule_or_says_why_not():
    summary = study([trial(0, 40, 78), trial(1, 38, 77), trial(2, 45, 80)])
    assert choose(summary).trial == 0
    assert choose(summary, "min-chair").trial == 1
    assert choose(summary, "max-f1").trial == 2
    assert choose(summary, "trial:1").trial == 1
    nothing = choose(study([trial(0, 40, 50)]))
    assert nothing.trial is None and "trial:0" in nothing.reason
    with pytest.raises(RequestError, match="trial '9'"):
        choose(summary, "trial:9")


def test_parameters_that_vary_and_those_all_share():
    summary = study([trial(0, 40, 78, a=1, b="x"), trial(1, 38, 77, a=2, b="x")])
    assert summary.varying_parameters == ["a"] and summary.shared_parameters == {"b": "x"}
    alone = study([trial(0, 40, 78, a=1, b="x")])
    assert alone.varying_parameters == ["a", "b"] and alone.shared_parameters == {}


@pytest.mark.parametrize(
    ("label", "models"),
    [
        ("LLaVA-1.5", ["llava-1.5", "llava-hf/llava-1.5-7b-hf", "liuhaotian/llava-v1.5-7b", "/models/LLaVA-1.5"]),
        ("MiniGPT-4", ["minigpt4", "MiniGPT-4"]),
        ("InstructBLIP", ["instructblip", "Salesforce/instructblip-vicuna-7b"]),
    ],
)
def test_reported_numbers_are_those_of_the_studys_model(label, models):
    for model in models:
        assert [point.label for point in paper_points(model)] == [f"{label}, greedy", f"{label}, KVSmooth"]


@pytest.mark.parametrize("model", ["demo", "llava-next", "llava-hf/llava-v1.6-vicuna-7b-hf", "llava-1.5-13b"])
def test_a_model_that_the_paper_has_not_is_shown_all_that_it_has(model):
    assert len(paper_points(model)) == 6 and all(point.reported for point in paper_points(model))


def test_no_share_of_a_box_is_claimed_before_there_is_a_front():
    running = trial(0, None, None, "running", a=1)
    assert facts.volume(study([], baseline=None)) == "no hypervolume before the baseline is judged"
    assert facts.volume(study([running])) == "no hypervolume without a front"
    assert facts.volume(study([running, trial(1, 40, 78, a=2)])).startswith("hypervolume 7.6 %")


def test_csv_is_plain_text():
    assert (
        io.StringIO(trials_frame(random_study(3)).to_csv(index=False)).readline().startswith("study,kind,number,state")
    )
