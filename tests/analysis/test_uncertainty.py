"""What a study's summary says of how sure it is."""

import json
import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scored_studies import scored_study

from kvtune.analysis.selection import choose
from kvtune.analysis.summarize import summarize
from kvtune.chair import METRICS, ChairScorer, load_ground_truth
from kvtune.errors import RequestError
from kvtune.report.data.document import study_document
from kvtune.statistics.bootstrap import Bootstrap
from kvtune.statistics.paired import holm, mcnemar, wilson_interval
from kvtune.study.caption_log import captions_of, captions_sha256, read_captions
from kvtune.study.manifest import load_manifest
from kvtune.study.scoring import Scoring, truth_of
from kvtune.study.study_folder import StudyFolder
from kvtune.study.trials import LedgerWriter


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    return scored_study(tmp_path_factory.mktemp("studies") / "study", trials=10)


def test_every_number_follows_from_the_captions(folder: StudyFolder) -> None:
    summary = summarize(folder)
    scorer = ChairScorer(load_ground_truth(folder.ground_truth))

    def table(number: int | None) -> np.ndarray:
        return scorer.counts(read_captions(folder.trial_captions(number)).values()).table

    def by_image(number: int | None) -> np.ndarray:
        lines = sorted(read_captions(folder.trial_captions(number)).values(), key=lambda line: line["image_id"])
        return scorer.counts(lines).column("hallucinated_captions")

    p_values = [mcnemar(by_image(trial.number), by_image(None)) for trial in summary.trials]
    for trial, p_value, adjusted in zip(summary.trials, p_values, holm(p_values), strict=True):
        hits = int(table(trial.number)[:, 1].sum())
        assert trial.intervals["chair_s"] == wilson_interval(hits, 40)
        for name in METRICS:
            assert trial.intervals[name][0] <= trial.rate(name) <= trial.intervals[name][1]
            assert trial.differences[name].value == pytest.approx(trial.rate(name) - summary.baseline.rate(name))
        assert (trial.differences["chair_s"].p_value, trial.differences["chair_s"].p_adjusted) == (p_value, adjusted)
        assert trial.length is not None and trial.length.at_limit == 0
    assert summary.baseline is not None and summary.baseline.intervals and not summary.baseline.differences


def test_ties_are_mutual_on_the_front_alone_and_those_of_the_definition(folder: StudyFolder) -> None:
    summary = summarize(folder)
    scorer = ChairScorer(load_ground_truth(folder.ground_truth))
    ids = list(read_captions(folder.trial_captions(None)))
    tables = {}
    for number in summary.front:
        lines = read_captions(folder.trial_captions(number))
        tables[number] = scorer.counts([lines[image_id] for image_id in sorted(ids)]).table
    for trial in summary.trials:
        assert all(trial.number in summary.trials[other].ties for other in trial.ties)
        if trial.number not in summary.front:
            assert trial.ties == ()
    assert len(summary.front) > 1
    # Another order of the images draws other resamples, so only clear cases must agree.
    for one in summary.front:
        for other in summary.front:
            if one != other:
                pair = Bootstrap([tables[one], tables[other]])
                bounds = [bound for name in ("chair_s", "f1") for bound in pair.difference(name, 0, 1)[1]]
                if min(abs(bound) for bound in bounds) > 0.5:
                    assert (other in summary.trials[one].ties) == pair.tied(0, 1)


def test_the_cut_baseline_ends_at_the_baseline(folder: StudyFolder) -> None:
    summary = summarize(folder)
    assert summary.baseline is not None
    last = summary.cut_baseline[-1]
    for name in METRICS:
        assert last[name] == pytest.approx(summary.baseline.rate(name))


def test_the_hypervolume_is_less_than_it_looks(folder: StudyFolder) -> None:
    summary = summarize(folder)
    found = summary.hypervolume_estimate
    assert found is not None and found.observed == summary.hypervolume
    assert found.bias > 0 and found.interval[0] <= found.corrected <= found.interval[1]


def test_the_same_study_the_same_statistics_with_and_without_its_cache(folder: StudyFolder) -> None:
    first = summarize(folder)
    assert folder.counts.exists()
    assert summarize(folder) == first
    folder.counts.unlink()
    assert summarize(folder) == first


def test_all_of_it_is_json(folder: StudyFolder) -> None:
    summary = summarize(folder)
    document = json.loads(json.dumps(study_document(summary, choose(summary)), allow_nan=False))
    trial = document["trials"][3]
    assert set(trial["differences"]["f1"]) == {"value", "interval", "p_value", "p_adjusted"}
    assert document["statistics"] == {"confidence": 0.95, "resamples": 2000, "seed": 0}
    assert set(document["hypervolume_estimate"]) == {"corrected", "bias", "interval"}
    assert document["cut_baseline"][0]["sentences"] == 1
    assert set(trial["length"]) == {"at_limit", "distinct", "cut_chair_s", "cut_f1", "flag"}


def test_without_statistics_no_caption_is_read(folder: StudyFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kvtune.analysis.uncertainty.judged_captions", lambda *_: pytest.fail("captions were read"))
    plain = summarize(folder, statistics=False)
    assert plain.hypervolume_estimate is None and not plain.trials[0].intervals


def test_what_another_scorer_scored_or_has_lost_its_captions_has_no_intervals(
    folder: StudyFolder, tmp_path: Path
) -> None:
    damaged = StudyFolder(tmp_path / "study")
    shutil.copytree(folder.path, damaged.path)
    damaged.trial_captions(2).unlink()
    lines = [json.loads(line) for line in damaged.ledger.read_text().splitlines()]
    for line in lines:
        if line["event"] == "complete" and line["number"] == 4:
            line["scoring"] = "another"
    damaged.ledger.write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary = summarize(damaged)
    assert [trial.number for trial in summary.trials if not trial.intervals] == [2, 4]
    assert summary.hypervolume_estimate is None
    # They were tried all the same, as raced trials are, and which are compared may hang on how they did.
    p_values = [trial.differences["chair_s"].p_value for trial in summary.trials if trial.differences]
    adjusted = [trial.differences["chair_s"].p_adjusted for trial in summary.trials if trial.differences]
    assert [*adjusted, 1, 1] == holm([*p_values, 1, 1]) and adjusted != holm(p_values)
    damaged.ground_truth.unlink()
    assert not any(trial.intervals for trial in summarize(damaged).trials)


def test_a_raced_trial_has_intervals_of_the_images_that_it_saw_and_no_differences(
    folder: StudyFolder, tmp_path: Path
) -> None:
    raced = StudyFolder(tmp_path / "study")
    shutil.copytree(folder.path, raced.path)
    scoring, first = Scoring(truth_of(raced)), load_manifest(raced).image_order[:20]
    seen = captions_of(raced.trial_captions(3), first)
    outcome = {"metrics": scoring.score(seen), "captions": captions_sha256(seen)}
    with closing(LedgerWriter(raced.ledger)) as ledger:
        ledger.rewrite(lambda trial: replace(trial, state="raced", by=0, **outcome) if trial.number == 3 else trial)
    trial = summarize(raced).trials[3]
    hits = int(scoring.counts(seen).column("hallucinated_captions").sum())
    assert trial.images == 20 and trial.intervals["chair_s"] == wilson_interval(hits, 20)
    assert trial.intervals.keys() == METRICS.keys()
    assert trial.differences == {} and trial.length is not None and trial.length.cut_f1 is None


def test_scores_that_lack_a_metric_are_refused_with_the_command_that_finds_the_study(tmp_path: Path) -> None:
    folder = scored_study(tmp_path / "elsewhere", images=8, trials=2)
    with closing(LedgerWriter(folder.ledger)) as ledger:
        ledger.rewrite(lambda trial: replace(trial, metrics={"chair_s": 1.0, "f1": 1.0, "images": 8}))
    with pytest.raises(RequestError, match=f"scored without .*mean_words; run kvtune rescore {folder.path}$"):
        summarize(folder)
