"""A reproduced table: what stands beside our numbers, at any width, and what is said of it."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from synthetic_studies import scores as scores_at

from kvtune.analysis.result import Difference, Result
from kvtune.chair import METRICS, Scores, load_ground_truth, read_captions
from kvtune.cli.main import main
from kvtune.presets import SubsetInfo
from kvtune.report.data.reported import reported, reported_table
from kvtune.report.data.reproduction import reproduction_document, reproduction_frame
from kvtune.report.reproduction_facts import label, sentences
from kvtune.report.reproduction_files import reproduction_markdown, write_reproduction
from kvtune.report.terminal.reproduction import reproduction_view
from kvtune.reproduce import PAPER_MODELS, ModelResult, SettingResult
from kvtune.reproduce.documents import FactorPoint, FactorSweep
from kvtune.reproduce.paper_settings import LAMBDAS, TABLES, rows


def result(chair_s: float, f1: float, compared: bool) -> Result:
    rates = {"chair_s": chair_s, "chair_i": 12.5, "precision": 80.0, "recall": 77.7, "f1": f1, "mean_words": 96.4}
    values = dict.fromkeys(METRICS, 50.0) | rates
    difference = Difference(-20.0, (-25.0, -15.0), 0.0001, 0.0002)
    return Result(
        metrics=Scores(**values, images=500, scorer="x"),
        intervals={name: (value - 4.0, value + 4.0) for name, value in values.items()},
        differences=dict.fromkeys(METRICS, difference) if compared else {},
    )


def reproduced(
    table: Any = "table1",
    family: str = "llava-1.5",
    scores: dict[str, tuple[float, float]] | None = None,
    **changed: Any,
) -> ModelResult:
    """A result with made-up scores: CHAIR_S 45 and F1 78 wherever ``scores`` says nothing."""
    params = {"lambda_ref": 0.9, "start_layer": 3, "end_layer": 31}
    settings = [
        SettingResult(
            name=name,
            prompt="?",
            params={} if name in ("opera", "baseline") else params,
            result=result(*(scores or {}).get(name, (45.0, 78.0)), compared=name not in ("opera", "baseline")),
        )
        for name in rows(table, str(changed.get("model", family)), int(changed.get("layers", 32)))
    ]
    points = [FactorPoint(factor=f, metrics=scores_at(30.0, 70 + f), intervals={}) for f in LAMBDAS]
    other = SubsetInfo(name="val2014-500-seed0", sha256="", images=500)
    values: dict[str, Any] = {
        "table": table,
        "model": family,
        "id": f"hub/{family}",
        "revision": "0123456789abcdef" * 2 + "01234567",
        "family": family,
        "layers": 32,
        "dtype": "float16",
        "paper_model": True,
        "max_new_tokens": 512,
        "subset": {"name": "opera500", "sha256": "0", "images": 500},
        "whole": True,
        "scoring": "x",
        "statistics": {},
        "constant": FactorSweep(chosen=0.9, subset=other, points=points),
        "settings": settings,
    }
    return ModelResult(**values | changed)


def shown(found: ModelResult, width: int = 140) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(reproduction_view(found, console))
    return console.file.getvalue()  # type: ignore[attr-defined]


def row(found: ModelResult, name: str, width: int = 140) -> list[str]:
    wanted = label(found, next(setting for setting in found.settings if setting.name == name))
    return next(line for line in shown(found, width).splitlines() if line.startswith(wanted + " "))[
        len(wanted) :
    ].split()


def test_reported_numbers_stand_beside_ours_with_the_difference() -> None:
    found = reproduced(scores={"adaptive": (20.0, 79.0), "baseline": (41.0, 77.0), "opera": (45.0, 78.2)})
    assert row(found, "opera")[:6] == ["45.0", "45.0", "+0.0", "78.2", "78.2", "+0.0"]
    assert row(found, "baseline")[:6] == ["41.0", "41.8", "-0.8", "77.0", "77.5", "-0.5"]
    assert row(found, "constant")[:4] == ["45.0", "36.2*", "+8.8", "78.0"]
    assert row(found, "adaptive") == ["20.0", "18.2", "+1.8", "79.0", "79.2", "-0.2", "12.5", "80.0", "77.7", "96.4"]
    assert "41.0-49.0" in shown(found) and "* From summaries of the paper" in shown(found)
    keys = reproduced("table4", scores={"keys": (35.0, 80.0)})
    assert row(keys, "keys")[:6] == ["35.0", "35.6*", "-0.6", "80.0", "79.4*", "+0.6"]
    assert row(reproduced("table4", "instructblip"), "keys")[:2] == ["45.0", "78.0"], "nothing is known of it"


@pytest.mark.parametrize("width", [60, 80, 100, 120, 140, 200])
@pytest.mark.parametrize("table", TABLES)
def test_nothing_is_cut_at_any_width(width: int, table: Any) -> None:
    found = reproduced(table)
    text = shown(found, width)
    assert "…" not in text and max(map(len, text.splitlines())) <= width
    for setting in found.settings:
        assert label(found, setting) in text
    assert ("precision" in text) == (width >= 120)
    plain = " ".join(text.split())
    assert f"KVSmooth, table {table[-1]} with llava-1.5" in plain and "500 images (opera500)" in plain


def test_rivals_have_the_settings_that_are_published_for_the_model_or_no_row() -> None:
    found = reproduced(scores={"pai": (40.0, 75.0)})
    assert row(found, "pai")[:6] == ["40.0", "44.6*", "-4.6", "75.0", "73.8*", "+1.2"]
    assert row(found, "sparc")[:2] == ["45.0", "78.0"], "nothing is reported of it"
    said = sentences(found)
    assert any(
        each.startswith("PAI: ") and each.endswith("(README of LALBJ/PAI, without its contrast).") for each in said
    )
    assert any(each.startswith("* PAI: one reproduction") and "/issues/20" in each for each in said)
    assert not any("no row" in each for each in said)
    for model, layers, names in (
        ("instructblip", 32, "PAI, SPARC, MiddleLayer"),
        ("minigpt4", 32, "SPARC, MiddleLayer"),
        ("my-llava", 32, "PAI, SPARC, MiddleLayer"),
        ("llava-1.5", 24, "PAI"),
    ):
        other = reproduced(model=model, layers=layers)
        assert f"{names}: no row, because no setting of theirs is known for {model}." in sentences(other)
        assert (other.setting("pai") is None) == ("PAI" in names)
    assert "no row" not in " ".join(sentences(reproduced("table4", "minigpt4"))), "they are not of that table"


def test_what_is_said_of_the_check() -> None:
    def check(chair_s: float, f1: float, **changed: Any) -> str:
        said = sentences(reproduced(scores={"opera": (chair_s, f1)}, **changed))
        return next(sentence for sentence in said if sentence.startswith(("Check", "No check")))

    assert "CHAIR_S 45.0 and F1 78.2; both within our intervals" in check(46.0, 77.0)
    assert "CHAIR_S outside our interval: look at weights" in check(54.0, 77.0)
    assert "CHAIR_S and F1 outside our interval" in check(30.0, 60.0)
    assert "CHAIR_S 31.8 and F1 71.4; both" in check(32.0, 71.0, family="minigpt4")
    # Of other images, and written otherwise: whatever ours are, they say nothing of weights or preprocessing.
    for ours in ((58.0, 71.0), (30.0, 60.0)):
        said = check(*ours, family="instructblip")
        assert said.startswith("No check: ") and said.endswith("have CHAIR_S 58.8 and F1 70.0.")
        assert "500 other images" in said and "repetition penalty of 1.5" in said and "interval" not in said


def test_what_the_table_cannot_say_is_said() -> None:
    said = " ".join(sentences(reproduced()))
    assert (
        "Constant lambda: 0.9 has the highest F1 of 0.1 to 0.9 on 500 other images (val2014-500-seed0): 0.1: 70.1"
        in said
    )
    # Half an interval of 8 points, times the square root of 2.
    assert "differ by chance by up to 5.7 points of CHAIR_S and 5.7 points of F1" in said
    assert "KVSmooth against greedy decoding: CHAIR_S -20.0 (95 % interval -25.0 to -15.0, unadjusted" in said
    assert "same weights" not in said and "Keys alone and" not in said
    assert "Keys alone and attention output have KVSmooth's own parameters." in sentences(reproduced("table4"))
    assert "llava-1.5: they compare only if my-llava has the same weights" in " ".join(
        sentences(reproduced(model="my-llava"))
    )
    other = reproduced(family="demo", paper_model=False, layers=8)
    said = " ".join(sentences(other))
    assert "Nothing is reported for this model" in said and "layers 3 to 30 of 8" in said and "Check" not in said
    assert "reported" in shown(other) and row(other, "baseline")[:2] == ["45.0", "78.0"]
    assert "the first 20 images of opera500" in shown(
        reproduced(whole=False, subset=SubsetInfo(name="opera500", sha256="", images=20))
    )


def test_the_document_the_csv_and_the_markdown(tmp_path: Path) -> None:
    results = [reproduced(scores={"adaptive": (20.0, 79.0)}), reproduced(family="minigpt4")]
    document = json.loads(json.dumps(reproduction_document(results)))
    assert (document["format"], document["table"]) == ("kvtune-reproduction/1", "table1")
    assert [model["model"] for model in document["models"]] == ["llava-1.5", "minigpt4"]
    adaptive = document["models"][0]["settings"][3]
    assert adaptive["result"]["metrics"]["chair_s"] == 20.0
    assert adaptive["reported"] == {
        "scores": {"chair_s": 18.2, "f1": 79.2},
        "difference": {"chair_s": pytest.approx(1.8), "f1": pytest.approx(-0.2)},
        "within_interval": {"chair_s": True, "f1": True},
        "source": reported_table()["source"],
        "seen": reported_table()["seen"]["abstract"],
        "first_hand": True,
        "same_images": False,
    }
    opera = document["models"][0]["settings"][0]["reported"]
    assert opera["same_images"] and opera["scores"]["mean_words"] == 96.9
    assert document["models"][1]["settings"][2]["reported"] is None
    # Without what the report adds, each model is the document that the search gave.
    for model, found in zip(document["models"], results, strict=True):
        for setting in model["settings"]:
            del setting["reported"]
        assert ModelResult.model_validate(model | {"table": "table1"}) == found

    paths = write_reproduction(tmp_path, results[0])
    assert [path.name for path in paths] == ["table1.json", "table1.csv", "table1.md"]
    assert json.loads(paths[0].read_text()) == reproduction_document(results[:1])
    lines = list(csv.DictReader(paths[1].open()))
    assert [each["setting"] for each in lines] == list(TABLES["table1"]) and len(reproduction_frame(results[0])) == 7
    assert (lines[3]["chair_s"], lines[3]["chair_s_low"], lines[3]["chair_s_reported"]) == ("20.0", "16.0", "18.2")
    assert (lines[2]["f1_reported"], lines[0]["lambda_ref"], lines[3]["lambda_ref"]) == ("", "", "0.9")
    markdown = reproduction_markdown(results[0])
    assert "| KVSmooth | 20.0 (16.0-24.0) | 18.2 | 79.0 (75.0-83.0) | 79.2 | 96.4 |" in markdown
    assert "36.2\\*" in markdown and paths[2].read_text() == markdown


def test_every_reported_number_says_where_it_was_seen() -> None:
    table = reported_table()
    parts = [table, *(table[name] for name in ("ablations", "reproductions", "anchors", "other_anchors"))]
    keys = [(each["model"], each["setting"]) for part in parts for each in part["points"]]
    assert len(set(keys)) == len(keys) and {model for model, _ in keys} == set(PAPER_MODELS)
    assert {setting for _, setting in keys} <= {name for names in TABLES.values() for name in names}
    for model, setting in keys:
        found = reported(model, setting)
        assert found is not None and found.seen in table["seen"].values()
        assert all(0 < value < 100 for value in found.scores.values())
        assert found.same_images == (setting == "opera" and model != "instructblip")
    # KVSmooth's table 1 and abstract, and OPERA's captions scored by the CHAIR reference.
    assert reported("llava-1.5", "adaptive").scores == {"chair_s": 18.2, "f1": 79.2}  # type: ignore[union-attr]
    pairs = {
        key: tuple(reported(*key).scores[name] for name in ("chair_s", "f1")) for key in keys if key[1] != "constant"
    }  # type: ignore[union-attr]
    for model, baseline, opera in (
        ("llava-1.5", (41.8, 77.5), (45.0, 78.2)),
        ("minigpt4", (31.8, 69.9), (31.8, 71.4)),
        ("instructblip", (61.4, 71.6), (58.8, 70.0)),
    ):
        assert (pairs[model, "baseline"], pairs[model, "opera"]) == (baseline, opera)
    assert reported("demo", "baseline") is None and reported("llava-1.5", "no such row") is None


def test_operas_captions_have_the_reported_scores(shared_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    captions, truth = (
        shared_data / "chair" / "llava15_greedy_captions.jsonl",
        shared_data / "chair" / "ground_truth_500.json",
    )
    with pytest.raises(SystemExit) as ended:
        main(["score", str(captions), "--ground-truth", str(truth), "--json"])
    assert not ended.value.code
    scores = json.loads(capsys.readouterr().out)
    found = reported("llava-1.5", "opera")
    assert found is not None
    for name, value in found.scores.items():
        assert round(scores[name], 1) == value
    ids = [each["image_id"] for each in read_captions(captions)]
    from kvtune.coco import OPERA500, Subset

    assert tuple(ids) == Subset.load(OPERA500).image_ids and set(ids) <= load_ground_truth(truth).keys()
