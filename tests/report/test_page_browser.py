"""The page in a real browser."""

import json
import re

import browser
import pytest
from synthetic_studies import study, trial

from kvtune.analysis.selection import choose
from kvtune.report.data.overlay import OverlayPoint
from kvtune.report.page.build import html_page
from kvtune.report.page.pack import pack_captions

pytestmark = pytest.mark.skipif(browser.PROGRAM is None, reason="needs Chromium: apt-get install chromium")

EVIL = "</script><script>document.title = 'owned'</script> \"a dog\" & 'a cat' <img src=x onerror=alert(1)> 𝒳 dog"
TRUTH = {1: {"dog"}, 2: {"cat", "person"}, 3: {"dog"}}
BASELINE = {1: "a dog and a cat", 2: "a cat", 3: "a dog"}
TRIAL = {1: "a dog", 2: EVIL, 3: "a dog"}


def mentions(text):
    return [(match.start(), match.end(), match.group()) for match in re.finditer("dog|cat", text)]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    page = browser.Page(tmp_path_factory.mktemp("profile"))
    yield page
    page.close()


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    name = "<b>study & 'co'</b>"
    summary = study(
        [
            trial(0, 46, 79, published=True, lambda_ref=0.9),
            trial(1, 40, 78, lambda_ref=0.5, width=2.5),
            trial(2, 38, 70, lambda_ref=0.25),
            trial(3, 60, 60, "raced", lambda_ref=0.1),
        ],
        name=name,
    )
    packed = pack_captions([(None, BASELINE), (1, TRIAL)], TRUTH, mentions)
    overlays = [OverlayPoint("VCD <i>", {"chair_s": 50.0, "f1": 75.0}, reported=True, source="a table")]
    file = tmp_path_factory.mktemp("page") / "pareto.html"
    file.write_text(html_page(summary, choose(summary), packed, overlays), encoding="utf-8")
    return file


def text_of(page, selector):
    return page.evaluate(f"document.querySelector({json.dumps(selector)}).textContent")


def test_it_opens_without_network_or_errors_and_shows_the_chosen_point(page, file):
    page.open(file, 1280)
    page.wait_for("document.querySelectorAll('#caption-list > li').length === 3")
    assert page.requests == [file.as_uri()] and page.errors == []
    assert text_of(page, "#name") == "<b>study & 'co'</b>"
    assert text_of(page, "#point-title") == "Trial 1 · chosen, front"
    assert page.evaluate("document.querySelectorAll('#plot .mark').length") == 6
    assert "kvtune export '<b>study & '\"'\"'co'\"'\"'</b>' --select trial:1 --out preset.json" in text_of(page, "code")


def test_hover_shows_parameters_and_intervals(page, file):
    page.open(file, 1280)
    page.hover('.mark[data-key="1"]')
    page.wait_for("!document.getElementById('tip').hidden")
    tip = text_of(page, "#tip")
    assert "lambda_ref0.5" in tip and "37.5–42.5" in tip and "Trial 1" in tip
    page.hover('.mark[data-key="overlay-0"]')
    assert "VCD <i> · reported, other images" in text_of(page, "#tip")


def test_click_shows_captions_with_the_largest_change_first_and_script_as_text(page, file):
    page.open(file, 1280)
    page.click('.mark[data-key="2"]')
    page.wait_for("location.hash === '#trial-2'")
    page.wait_for("document.getElementById('captions-facts').textContent.includes('trial 2 are not in this page')")
    page.click('.mark[data-key="1"]')
    page.wait_for("document.querySelectorAll('#caption-list > li').length === 3")
    # Image 2 gains the dog that is not there; image 1 loses the cat that was not; image 3 stays.
    assert page.evaluate("[...document.querySelectorAll('#caption-list h3')].map(h => h.textContent)") == [
        "image 1",
        "image 2",
        "image 3",
    ]
    shown = "#caption-list > li:nth-child(2) > div:last-child > p:first-of-type"
    page.evaluate(f"document.querySelectorAll('{shown} .unseen').forEach(e => e.remove())")
    assert text_of(page, shown) == EVIL
    marks = page.evaluate(f"[...document.querySelectorAll('{shown} mark')].map(m => [m.textContent, m.className])")
    # The last one stands behind a character outside the basic plane, which counts as two in a browser.
    assert marks == [["dog", "hallucinated"], ["cat", "correct"], ["dog", "hallucinated"]]
    assert page.evaluate("document.title") != "owned" and not page.evaluate("!!document.querySelector('#captions img')")
    assert "1 have fewer hallucinated objects than with the baseline, 1 have more, 1 caption is unchanged" in text_of(
        page, "#captions-facts"
    )


def test_the_keyboard_reaches_every_point(page, file):
    page.open(file, 1280)
    page.evaluate("document.querySelector('.mark[tabindex=\"0\"]').focus()")
    page.press("Home")
    focused = "document.activeElement.dataset.key"
    order = [page.evaluate(focused)]
    for _ in range(5):
        page.press("ArrowRight")
        order.append(page.evaluate(focused))
    assert order == ["2", "1", "0", "baseline", "overlay-0", "3"]
    page.press("ArrowLeft")
    page.press("ArrowLeft")
    page.press("Enter")
    assert text_of(page, "#point-title") == "Baseline"
    label = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert label == "Baseline: CHAIR_S 47.2, F1 77.4"


def test_the_table_sorts_both_ways(page, file):
    page.open(file, 1280)
    numbers = "[...document.querySelectorAll('#table tbody tr')].map(r => r.dataset.key)"
    chair_s = "[...document.querySelectorAll('#table th button')].find(b => b.textContent === 'CHAIR_S').click()"
    page.evaluate(chair_s)
    assert page.evaluate(numbers) == ["2", "1", "0", "baseline", "3"]
    page.evaluate(chair_s)
    assert page.evaluate(numbers) == ["3", "baseline", "0", "1", "2"]
    assert page.evaluate("document.querySelectorAll('th[aria-sort=descending]').length") == 1


def test_parameters_are_drawn_against_scores_and_select_their_trial(page, file):
    page.open(file, 1280)
    page.wait_for("document.querySelectorAll('.trial-line').length > 0")
    lines = page.evaluate("[...document.querySelectorAll('.trial-line')].map(line => line.dataset.key).sort()")
    assert lines == ["0", "1", "2"], "complete trials alone"
    assert page.evaluate("document.querySelectorAll('#against svg').length") == 2  # lambda_ref, for CHAIR_S and F1
    page.evaluate("document.querySelector('#against [data-key=\"0\"]').dispatchEvent(new MouseEvent('click'))")
    assert text_of(page, "#point-title").startswith("Trial 0")
    selected = page.evaluate("[...document.querySelectorAll('#parameters .selected')].map(shape => shape.dataset.key)")
    assert set(selected) == {"0"}
    assert page.errors == []


def test_on_a_narrow_screen_scores_come_first_and_tips_stay_inside(page, file):
    heads = "[...document.querySelectorAll('#table th')].map(head => head.textContent)"
    page.open(file, 1280)
    assert page.evaluate(heads).index("lambda_ref") < page.evaluate(heads).index("CHAIR_S")
    page.open(file, 390)
    assert page.evaluate(heads).index("lambda_ref") > page.evaluate(heads).index("F1")
    for number in (2, 1, 0):
        page.hover(f'.mark[data-key="{number}"]')
        page.wait_for("!document.getElementById('tip').hidden")
        box = page.evaluate("(b => [b.left, b.right])(document.getElementById('tip').getBoundingClientRect())")
        assert box[0] >= 0 and box[1] <= 390


@pytest.mark.parametrize("dark", [False, True])
def test_nothing_runs_out_of_a_narrow_window(page, file, dark):
    page.open(file, 390, dark=dark)
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(15, 18, 22)") == dark
    assert page.errors == []


@pytest.mark.parametrize("trials", [[], [trial(0, None, None, "failed")], [trial(0, 50, 50, "running", images=4)]])
def test_sparse_studies_open_without_errors(page, tmp_path, trials):
    file = tmp_path / "page.html"
    summary = study(trials, None)
    file.write_text(html_page(summary, choose(summary)), encoding="utf-8")
    page.open(file, 1280)
    assert page.errors == []
    assert text_of(page, "#plot") == "No trial is judged yet."
