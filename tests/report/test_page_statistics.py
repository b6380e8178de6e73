"""What the page, in a real browser, says of how sure a study is."""

from dataclasses import replace

import browser
import pytest
from synthetic_studies import study, trial

from kvtune.report import facts
from kvtune.report.page import html_page
from kvtune.search.summary import CutBaseline, Difference, Length

pytestmark = pytest.mark.skipif(browser.PROGRAM is None, reason="needs Chromium: apt-get install chromium")


def test_differences_ties_flags_and_the_cut_baseline(tmp_path):
    difference = Difference(-6.2, (-8.0, -4.4), 0.001, 0.002)
    found = replace(
        trial(0, 41, 78, width=2.0),
        differences={"chair_s": difference, "f1": replace(difference, value=0.6, interval=(-1.0, 2.2))},
        ties=(1,),
        length=Length(0.0, (0.7, 0.9, 1.0), 40.0, 75.0, "CHAIR_S <b> is not below"),
    )
    curve = [CutBaseline(n, 20.0 * n, 10.0 * n, 1.0, 90.0, 50.0, 65.0 + n) for n in range(1, 5)]
    summary = replace(study([found, trial(1, 40, 77)]), cut_baseline=curve)
    file = tmp_path / "pareto.html"
    file.write_text(html_page(summary, facts.choice(summary)), encoding="utf-8")
    page = browser.Page(tmp_path / "profile")
    try:
        page.open(file, 1280)
        page.wait_for("document.querySelectorAll('#plot .mark').length === 3")
        text = page.evaluate("document.body.textContent")
        for words in ("CHAIR_S − baseline−6.2 −8.0 to −4.4", "F1 − baseline+0.6 −1.0 to +2.2", "tied with1"):
            assert words in text
        assert "lengthCHAIR_S <b> is not below" in text and "baseline cut to fewer sentences" in text
        assert page.evaluate("document.querySelector('#plot .cut-baseline').getAttribute('d').split('L').length") == 4
        assert page.errors == []
    finally:
        page.close()
