"""What the page, in a real browser, says of how sure a study is."""

from dataclasses import replace

import browser
import pytest
from synthetic_studies import cut_curve, random_study, study, trial, validation

from kvtune.analysis.result import Difference
from kvtune.analysis.selection import choose
from kvtune.analysis.summary import Length
from kvtune.report.page.build import html_page

pytestmark = pytest.mark.skipif(browser.PROGRAM is None, reason="needs Chromium: apt-get install chromium")


def test_differences_ties_flags_and_the_cut_baseline(tmp_path):
    difference = Difference(-6.2, (-8.0, -4.4), 0.001, 0.002)
    found = replace(
        trial(0, 41, 78, width=2.0),
        differences={"chair_s": difference, "f1": replace(difference, value=0.6, interval=(-1.0, 2.2))},
        ties=(1,),
        length=Length(0.0, (0.7, 0.9, 1.0), 40.0, 75.0, "CHAIR_S <b> is not below"),
    )
    curve = cut_curve(*((20.0 * n, 10.0 * n, 65.0 + n) for n in range(1, 5)))
    summary = replace(study([found, trial(1, 40, 77)]), cut_baseline=curve)
    file = tmp_path / "pareto.html"
    file.write_text(html_page(summary, choose(summary)), encoding="utf-8")
    page = browser.Page(tmp_path / "profile")
    try:
        page.open(file, 1280)
        page.wait_for("document.querySelectorAll('#plot .mark').length === 3")
        text = page.evaluate("document.body.textContent")
        for words in ("CHAIR_S − baseline−6.2 −8.0 to −4.4", "F1 − baseline+0.6 −1.0 to +2.2"):
            assert words in text
        assert "CHAIR_S − baseline−6.2 −8.0 to −4.4, p\u00a00.002" in text and "Tied with trial 1 (ringed)" in text
        assert page.evaluate("[...document.querySelectorAll('#plot .tied')].map(m => m.dataset.key)") == ["1"]
        assert "shorter caption: CHAIR_S <b> is not below" in text and "baseline cut to fewer sentences" in text
        assert page.evaluate("document.querySelector('#plot .cut-baseline').getAttribute('d').split('L').length") == 8
        assert page.errors == []
    finally:
        page.close()


def test_held_out_results_stand_beside_those_on_tune_images(tmp_path):
    summary = study([trial(0, 41, 78, published=True, width=2.0), trial(1, 40, 77)])
    found = validation(summary, [None, 0], chair_s=44.0, f1=71.0, width=3.0)
    alone = found.settings[1].model_copy(update={"number": None, "roles": ["published"], "tune": None})
    found = found.model_copy(update={"settings": [*found.settings, alone]})
    summary = replace(summary, validation=found)
    file = tmp_path / "pareto.html"
    file.write_text(html_page(summary, choose(summary)), encoding="utf-8")
    page = browser.Page(tmp_path / "profile")
    try:
        page.open(file, 1280)
        page.wait_for("document.querySelectorAll('#plot .mark').length === 3")
        assert page.evaluate("document.querySelectorAll('#plot .move').length") == 3
        rows = "[...document.querySelectorAll('#point .scores tr')].map(r => [...r.children].map(c => c.textContent))"
        shown = page.evaluate(rows)
        assert shown[0] == ["", "500 tune images", "400 held-out"]
        assert shown[1] == ["CHAIR_S", "41.0 39.0–43.0", "44.0 41.0–47.0"]
        assert ["CHAIR_S − baseline", "–", "−4.0 −6.0 to −2.0, p\u00a00.002"] in shown
        heads = page.evaluate("[...document.querySelectorAll('#table th')].map(h => h.textContent)")
        assert "F1 held-out" in heads
        page.hover('.mark[data-key="0"]')
        assert "CHAIR_S, held-out44.0 41.0–47.0" in page.evaluate("document.getElementById('tip').textContent")
        page.evaluate("document.getElementById('held-out').click()")
        assert page.evaluate("document.querySelectorAll('#plot .move').length") == 0
        page.click('.mark[data-key="1"]')
        assert page.evaluate(rows)[0] == ["CHAIR_S", "40.0"]
        assert page.errors == []
    finally:
        page.close()


def test_raced_trials_and_floors_are_explained(tmp_path):
    summary = random_study(30, raced=4)
    trials = [*summary.trials[:-1], replace(summary.trials[-1], state="complete", below_floor=("f1",))]
    summary = replace(summary, trials=trials, race_confidence=0.95, floors={"f1": 70.0})
    file = tmp_path / "pareto.html"
    file.write_text(html_page(summary, choose(summary)), encoding="utf-8")
    page = browser.Page(tmp_path / "profile")
    try:
        page.open(file, 1280, fragment="#trial-26")
        page.wait_for("document.querySelectorAll('#plot .mark').length === 31")
        assert page.evaluate("document.getElementById('point-title').textContent") == "Trial 26 · raced out"
        card = page.evaluate("document.getElementById('point-body').textContent")
        assert "Stopped after 200 of 500 images, because trial 0 beats it in both beyond doubt" in card
        assert "kvtune export" not in card
        notes = page.evaluate("document.getElementById('notes').textContent")
        assert "Raced out, 95 % sure: 3 trials, after 200 of 500 images" in notes and "F1 of at least 70" in notes
        assert (
            page.evaluate("document.querySelector('#table tr[data-key=\"29\"]').textContent").count("below floor") == 1
        )
        assert page.errors == []
    finally:
        page.close()
