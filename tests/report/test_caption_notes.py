"""A study says what makes its captions implausible, and how many hit the token limit."""

import io
import json

import pytest
from rich.console import Console
from study_folders import write_study
from synthetic_studies import study, trial

from kvtune.analysis.selection import choose
from kvtune.analysis.summarize import summarize
from kvtune.chair import ChairScorer
from kvtune.report.data.document import study_document
from kvtune.report.page.build import html_page
from kvtune.report.terminal.study import front_view
from kvtune.study.caption_log import CaptionLog
from kvtune.study.scoring import Scoring
from kvtune.study.trials import LedgerWriter, Trial

TRUTH = {image: {"dog"} for image in range(1, 11)}
GOOD = "A dog sits next to a person on the couch."


@pytest.fixture
def make(tmp_path):
    """Write a study whose settings (None: the baseline) have these captions and reasons, and summarise it."""

    def make(captions, reasons=None):
        summary = study([trial(n, 0, 1, lambda_ref=0.1 * n) for n in captions if n is not None], trial(None, 1, 1))
        folder = write_study(tmp_path, summary, ground_truth=TRUTH)
        folder.ledger.unlink()
        ledger = LedgerWriter(folder.ledger)
        scoring = Scoring(TRUTH)
        ledger.ask([Trial(each.number, each.params, each.published) for each in summary.trials])
        for number, texts in captions.items():
            log = CaptionLog(folder.trial_captions(number))
            for image, text in zip(TRUTH, texts, strict=True):
                log.append(image, text, 9, "length" if image in (reasons or {}).get(number, ()) else "eos")
            log.close()
            lines = [{"image_id": image, "caption": text} for image, text in zip(TRUTH, texts, strict=True)]
            ledger.complete(number, scoring.score(lines), scoring.identity)
        ledger.close()
        return summarize(folder)

    return make


def shown(summary, width=80):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(front_view(summary, choose(summary, "min-chair"), console))
    return console.file.getvalue()


def test_good_captions_have_no_notes(make):
    summary = make({None: [GOOD] * 10, 0: [GOOD] * 10})
    assert study_document(summary, choose(summary))["notes"] == []
    assert "No caption hit the token limit" in shown(summary)


def test_notes_of_settings_stand_in_json_and_in_the_terminal(make):
    empty = {0: [GOOD] * 8 + [""] * 2, 1: [GOOD] * 5 + [""] * 5}
    summary = make({None: [GOOD] * 10, **empty}, {None: (1, 2), 1: (3,)})
    notes = study_document(summary, choose(summary))["notes"]
    assert [(note["trial"], note["kind"], note["count"]) for note in notes] == [
        (None, "token-limit", 2), (0, "empty", 2), (1, "empty", 5), (1, "token-limit", 1),
    ]  # fmt: skip
    text = " ".join(shown(summary).split())
    assert "Trial 1: Empty: 5 of 10 captions (50 %)" in text and "(also trial 0)" in text
    assert "Captions that hit the token limit: baseline 20.0 %" in text
    assert "Baseline: At the token limit: 2 of 10 captions (20 %)" in text
    assert max(map(len, shown(summary).splitlines())) <= 80


def test_notes_reach_the_page_as_text(make):
    summary = make({None: [GOOD] * 10, 0: [GOOD] * 9 + ["<think>a <b>cat</b></think> A dog."]})
    page = html_page(summary, choose(summary))
    assert "Reasoning inside: 1 of 10 captions" in page and "<b>cat" not in page


def test_scores_are_of_the_captions_as_they_are(make):
    summary = make({None: ["A dog and a cat.</s>"] * 10})
    lines = [{"image_id": image, "caption": "A dog and a cat.</s>"} for image in TRUTH]
    assert summary.baseline.rate("chair_s") == ChairScorer(TRUTH).score(lines).chair_s == 0
    json.dumps(study_document(summary, choose(summary)))
