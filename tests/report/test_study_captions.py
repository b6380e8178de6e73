import base64
import gzip
import io
import json

import pytest
from PIL import Image
from study_folders import write_study
from synthetic_studies import study, trial

from kvtune.chair import ChairScorer
from kvtune.errors import RequestError
from kvtune.report.data.caption_sets import caption_sets
from kvtune.report.data.document import overlay_document
from kvtune.report.data.outcomes import outcomes_frame
from kvtune.report.data.overlay import captions_point, overlay_points
from kvtune.report.page.study_captions import packed_captions
from kvtune.report.page.thumbnails import SIDE, thumbnail

TRUTH = {10: {"dog", "person"}, 20: {"cat"}, 30: set()}
CAPTIONS = {
    None: {10: "A man and his dog. A cat.", 20: "Two cats and a dog.", 30: "A street."},
    0: {10: "A man and his dog.", 20: "Two cats.", 30: "A street."},
    1: {10: "A man, a dog, a dog.", 20: "A pizza."},
}


@pytest.fixture
def summary():
    return study(
        [trial(0, 30, 80, published=True, lambda_ref=0.5), trial(1, 60, 60, "running", lambda_ref=0.1)],
        trial(None, 66, 70),
    )


@pytest.fixture
def folder(summary, tmp_path):
    return write_study(tmp_path, summary, CAPTIONS, TRUTH, coco=tmp_path / "coco")


def test_the_most_wanted_captions_come_first(folder, summary):
    assert [number for number, _ in caption_sets(folder, summary, chosen=0)] == [None, 0, 1]


def test_outcomes_add_up_to_the_scores(folder, summary):
    frame = outcomes_frame(folder, summary)
    assert len(frame) == 8 and frame["number"].isna().sum() == 3
    scorer = ChairScorer(TRUTH)
    for number, texts in CAPTIONS.items():
        rows = frame[frame["number"].isna()] if number is None else frame[frame["number"] == number]
        score = scorer.score([{"image_id": image, "caption": text} for image, text in texts.items()])
        assert 100 * rows["hallucinated_caption"].mean() == pytest.approx(score.chair_s)
        assert 100 * rows["hallucinated_mentions"].sum() / rows["mentions"].sum() == pytest.approx(score.chair_i)
        assert 100 * rows["correct"].sum() / rows["mentioned"].sum() == pytest.approx(score.precision)
        assert 100 * rows["correct"].sum() / rows["present"].sum() == pytest.approx(score.recall)
        assert rows["words"].mean() == pytest.approx(score.mean_words)
    first = frame.iloc[0]
    assert first["mentioned_objects"] == "cat;dog;person" and first["hallucinated_objects"] == "cat"


def test_packed_captions_carry_what_the_scorer_finds(folder, summary):
    data = json.loads(gzip.decompress(base64.b64decode(packed_captions(folder, summary, 0).data)))
    assert data["images"] == [10, 20, 30] and set(data["captions"]) == {"baseline", "0", "1"}
    for key, number in (("baseline", None), ("0", 0)):
        for place, index in enumerate(data["captions"][key]):
            text = CAPTIONS[number][data["images"][place]]
            (detail,) = ChairScorer(TRUTH).details([{"image_id": data["images"][place], "caption": text}])
            assert data["texts"][index] == text
            assert [data["categories"][c] for c in data["spans"][index][2::3]] == detail["mentioned"]
    assert data["captions"]["1"][2] == -1 and "thumbnails" not in data


def test_a_study_without_captions_has_none(summary, tmp_path):
    assert packed_captions(write_study(tmp_path, summary, {}, TRUTH), summary, None) is None
    assert len(outcomes_frame(write_study(tmp_path / "b", summary, {}, TRUTH), summary)) == 0


def test_thumbnails_are_small_and_keep_their_shape(tmp_path):
    Image.new("RGB", (640, 320), "red").save(tmp_path / "wide.png")
    Image.new("L", (20, 10)).save(tmp_path / "small.png")
    wide, small = (Image.open(io.BytesIO(thumbnail(tmp_path / name))) for name in ("wide.png", "small.png"))
    assert (wide.size, small.size) == ((SIDE, SIDE // 2), (20, 10)) and wide.format == small.format == "JPEG"


def write(path, captions):
    path.write_text("".join(json.dumps({"image_id": i, "caption": c}) + "\n" for i, c in captions))
    return path


def test_an_overlay_is_scored_on_the_studys_images_alone(tmp_path):
    path = write(tmp_path / "vcd.jsonl", [*CAPTIONS[None].items(), (99, "A dog and a bus.")])
    point = captions_point(path, TRUTH, list(TRUTH))
    expected = ChairScorer(TRUTH).score([{"image_id": i, "caption": c} for i, c in CAPTIONS[None].items()])
    assert (point.label, point.x, point.y) == ("vcd", expected.chair_s, expected.f1)
    assert not point.reported and point.kind == "captions file, same images"


def test_an_overlay_is_looked_at_and_read_by_other_fields(tmp_path, folder):
    path = tmp_path / "other.csv"
    path.write_text("image,text\n10,A dog.</s>\n20,\n30,A dog.\n")
    (point,) = overlay_points(str(path), folder, "llava", "image", "text")
    assert {note.kind: note.count for note in point.notes} == {"empty": 1, "end-marks": 1}
    assert point.scores["chair_s"] == pytest.approx(100 / 3)
    document = overlay_document(point)
    assert [note["kind"] for note in document["notes"]] == ["empty", "end-marks"]
    assert not any(" --answer" in note["text"] for note in document["notes"])
    with pytest.raises(RequestError, match=r"\(image, text\); write --image-key image --caption-key text"):
        overlay_points(str(path), folder, "llava")


def test_an_overlay_that_misses_an_image_or_has_one_twice_is_refused(tmp_path, folder):
    short = write(tmp_path / "short.jsonl", list(CAPTIONS[1].items()))
    with pytest.raises(RequestError, match=r"covers 2 of the study's 3 tune images \(first missing: 30\)"):
        overlay_points(str(short), folder, "llava")
    double = write(tmp_path / "double.jsonl", [*CAPTIONS[0].items(), (10, "Again.")])
    with pytest.raises(RequestError, match="2 captions of image 10"):
        overlay_points(str(double), folder, "llava")
    with pytest.raises(RequestError, match="does not exist"):
        overlay_points(str(tmp_path / "nope.jsonl"), folder, "llava")
    assert overlay_points("paper", folder, "llava")[0].reported
