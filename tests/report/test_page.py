import base64
import gzip
import json
import random
import re

from hypothesis import given
from hypothesis import strategies as st
from synthetic_studies import random_study, study, trial

from kvtune.analysis.selection import Choice, choose
from kvtune.report.page import pack
from kvtune.report.page.build import html_page
from kvtune.report.page.pack import pack_captions


def unpacked(packed):
    return json.loads(gzip.decompress(base64.b64decode(packed.data)))


def words(*known):
    return lambda text: [(m.start(), m.end(), m.group()) for m in re.finditer("|".join(known), text)]


def study_data(page):
    (text,) = re.findall(r'<script type="application/json" id="study-data">(.*?)</script>', page, re.DOTALL)
    return json.loads(text)


def test_every_caption_comes_back_with_its_objects():
    baseline = {1: "a dog", 2: "a cat"}
    first = {1: "a dog", 2: "a dog and a cat"}
    truth = {1: {"dog"}, 2: {"cat"}}
    data = unpacked(pack_captions([(None, baseline), (7, first)], truth, words("dog", "cat")))
    assert data["images"] == [1, 2] and len(data["texts"]) == 3
    for key, texts in (("baseline", baseline), ("7", first)):
        assert [data["texts"][index] for index in data["captions"][key]] == list(texts.values())
    spans = dict(zip(data["texts"], data["spans"], strict=True))
    named = [data["categories"][index] for index in spans["a dog and a cat"][2::3]]
    assert named == ["dog", "cat"] and spans["a dog and a cat"][:2] == [2, 5]
    assert [[data["categories"][index] for index in names] for names in data["truth"]] == [["dog"], ["cat"]]


def test_a_trial_that_is_not_done_has_gaps():
    data = unpacked(pack_captions([(None, {1: "a", 2: "b"}), (0, {2: "b"})], {1: [], 2: []}, words("x")))
    assert data["captions"]["0"] == [-1, data["captions"]["baseline"][1]]


@given(st.text(), st.data())
def test_spans_count_as_browsers_do(text, data):
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    packed = unpacked(pack_captions([(None, {1: text})], {1: []}, lambda _: [(start, end, "x")]))
    first, last, _ = packed["spans"][0]
    units = text.encode("utf-16-le", "surrogatepass")
    assert units[2 * first : 2 * last].decode("utf-16-le", "surrogatepass") == text[start:end]


def test_thumbnails_are_beside_their_images():
    steps = []
    packed = pack_captions(
        [(None, {5: "a", 6: "b"})], {5: [], 6: []}, words("x"), lambda i: b"%d" % i, lambda *step: steps.append(step)
    )
    assert unpacked(packed)["thumbnails"] == [base64.b64encode(name).decode() for name in (b"5", b"6")]
    assert steps == [(1, 2), (2, 2)]


def test_what_exceeds_the_room_is_left_out_from_the_end_and_said(monkeypatch):
    monkeypatch.setattr(pack, "MOST_TEXT", 20)
    packed = pack_captions([(None, {1: "a" * 10}), (3, {1: "b" * 10}), (4, {1: "c" * 10})], {1: []}, words("x"))
    assert set(unpacked(packed)["captions"]) == {"baseline", "3"}
    assert packed.note == "1 of 3 sets of captions are left out to keep the page small"


def test_fifty_trials_of_five_hundred_images_stay_under_twelve_megabytes():
    # Captions of random words: real ones repeat each other and pack several times better.
    draw = random.Random(0)
    vocabulary = ["".join(draw.choices("abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(3000)]
    shared = [" ".join(draw.choices(vocabulary, k=60)) for _ in range(500)]
    sets = [
        (number, {image: f"{shared[image]} {' '.join(draw.choices(vocabulary, k=20))}" for image in range(500)})
        for number in [None, *range(50)]
    ]
    summary = random_study(50)
    packed = pack_captions(sets, {image: ["dog"] for image in range(500)}, lambda text: [(0, 3, "dog"), (9, 12, "cat")])
    assert packed.note == ""
    assert len(html_page(summary, choose(summary), packed).encode()) < 12e6


def test_nothing_from_the_study_can_become_markup():
    evil = "</script><script>alert(1)</script><!--"
    summary = study([trial(0, 40, 80, target=evil)], name=evil)
    page = html_page(summary, choose(summary))
    assert page.count("<script") == 3 and page.count("</script") == 3 and "alert(1)</script>" not in page
    assert study_data(page)["study"] == evil
    assert study_data(page)["trials"][0]["params"] == {"target": evil}


def test_the_page_asks_for_nothing_and_allows_nothing():
    page = html_page(random_study(5), Choice(None, "keep-f1", "none"))
    assert (
        not re.search(r"(src|href)=[\"'](?!#)", page)
        and "@import" not in page
        and "url(" not in page.split("<script")[0]
    )
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    assert "default-src 'none'" in policy and "unsafe" not in policy


def test_the_export_command_names_the_study_safely():
    summary = study([trial(0, 40, 80)], name="it's mine")
    command = study_data(html_page(summary, choose(summary)))["export_command"]
    assert command == """kvtune export 'it'"'"'s mine' --select trial:{number} --out preset.json"""
