"""Captions files and image ids."""

import io
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kvtune.chair import parse_image_id, read_captions
from kvtune.errors import RequestError

CAPTIONS = [{"image_id": 42, "caption": "A dog."}, {"image_id": 7, "caption": 'Ein "Hündchen"\n'}]


@pytest.mark.parametrize(
    "value",
    [
        226988, 226988.0, "226988", " 226988 ", "226988.0",
        "COCO_val2014_000000226988", "val/coco_val2014_000000226988",
        "000000226988", "COCO_val2014_000000226988.jpg", "000000226988.jpg",
        "val2017/000000226988.jpg", "/data/coco/train2014/COCO_train2014_000000226988.JPG",
        "C:\\coco\\000000226988.png",
    ],
)  # fmt: skip
def test_image_ids(value):
    assert parse_image_id(value) == 226988


@pytest.mark.parametrize(
    "value",
    [
        "", "dog", "dog.jpg", "42.5", 42.5, float("inf"), float("nan"), 2.0**60, "1/2", [[[[[[[[1]]]]]]]], -1, "-1",
        True, None, [42], "²", "٤٢", "9" * 19, 10**18, "42.jpg.txt",
    ],
)  # fmt: skip
def test_what_is_no_image_id(value):
    with pytest.raises(ValueError, match="is no image id"):
        parse_image_id(value)


def test_json_and_lines(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps(CAPTIONS))
    (tmp_path / "a.jsonl").write_text("\n\n".join(map(json.dumps, CAPTIONS)) + "\n")
    assert read_captions(tmp_path / "a.json") == read_captions(tmp_path / "a.jsonl") == CAPTIONS


def test_other_keys(tmp_path):
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps({"image": "COCO_val2014_000000000042.jpg", "text": "A dog.", "model_id": "x"}))
    assert read_captions(path, "image", "text") == [{"image_id": 42, "caption": "A dog."}]


def test_lines_end_at_line_feeds_only(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"image_id": 1, "caption": "a\u2028b\u0085c"}, ensure_ascii=False), encoding="utf-8")
    assert read_captions(path)[0]["caption"] == "a\u2028b\u0085c"


LAYOUTS = {
    "list": json.dumps(CAPTIONS),
    "lines": "\n".join(map(json.dumps, CAPTIONS)),
    "lines apart": "\n\n".join(map(json.dumps, CAPTIONS)) + "\r\n",
    "objects over several lines": "\n".join(json.dumps(each, indent=2) for each in CAPTIONS),
    "one after another": "".join(map(json.dumps, CAPTIONS)),
    "byte order mark": "\ufeff" + json.dumps(CAPTIONS),
    "ids to captions": json.dumps({f"{each['image_id']}": each["caption"] for each in CAPTIONS}),
    "ids to lists": json.dumps({f"{each['image_id']:012d}.jpg": [each["caption"]] for each in CAPTIONS}),
    "ids to records": json.dumps({f"{each['image_id']}": {"caption": each["caption"]} for each in CAPTIONS}),
    "COCO's results": json.dumps({"info": {}, "images": [{"id": 42}, {"id": 7}], "annotations": CAPTIONS}),
    "a list in an object": json.dumps({"model": "x", "results": CAPTIONS}),
    "lists of one text": json.dumps([{**each, "caption": [[each["caption"]]]} for each in CAPTIONS]),
    "CSV": 'image_id,caption\n42,A dog.\n7,"Ein ""Hündchen""\n"\n',
    "CSV with more columns": 'n,caption,image_id\r\n1,A dog.,42.0\r\n2,"Ein ""Hündchen""\n",7.0\r\n',
    "CSV of another country": 'image_id;caption\n42;A dog.\n7;"Ein ""Hündchen""\n"\n',
    "TSV": 'image_id\tcaption\n42\tA dog.\n7\t"Ein ""Hündchen""\n"\n',
}


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "a.csv", "a.tsv", "a.txt", "a"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_a_file_holds_decides_and_not_its_ending(tmp_path, layout, name):
    if LAYOUTS[layout].startswith(("image_id", "n,")) and name.startswith("a.json"):
        pytest.skip("a table is no JSON")
    path = tmp_path / name
    path.write_text(LAYOUTS[layout], encoding="utf-8", newline="")
    assert read_captions(path) == CAPTIONS


def test_several_captions_of_an_image_are_several(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"42": ["A dog.", "A cat."]}')
    assert [each["caption"] for each in read_captions(path)] == ["A dog.", "A cat."]


def test_a_field_of_a_field(tmp_path):
    path = tmp_path / "samples.jsonl"
    record = {"doc_id": 0, "target": "A cat here", "resps": [["A dog."]], "doc": {"question_id": "000000000042.jpg"}}
    path.write_text(json.dumps(record))
    with pytest.raises(RequestError, match=r"--image-key doc\.question_id --caption-key resps"):
        read_captions(path)
    assert read_captions(path, "doc.question_id", "resps") == [{"image_id": 42, "caption": "A dog."}]
    assert read_captions(path, "doc.question_id", "resps.0.0") == [{"image_id": 42, "caption": "A dog."}]


@pytest.mark.parametrize(
    ("record", "options"),
    [
        ({"image": "COCO_val2014_000000000042.jpg", "text": "A dog.", "id": 3}, "--image-key image --caption-key text"),
        ({"image_id": 42, "answer": "A dog."}, "--caption-key answer"),
        (
            {"question_id": 42, "prompt": "Describe it in detail.", "text": "A dog."},
            "--image-key question_id",
        ),
        ({"id": 42, "caption": "A dog."}, "--image-key id"),
        ({"img": 42, "said by the model": "A dog there."}, "--image-key img --caption-key 'said by the model'"),
    ],
)
def test_fields_that_look_like_them_are_named(tmp_path, record, options):
    path = tmp_path / "a.json"
    path.write_text(json.dumps([record]))
    with pytest.raises(RequestError, match=options):
        read_captions(path)


def test_why_a_caption_ended_is_kept_where_it_is_known(tmp_path):
    path = tmp_path / "baseline.jsonl"
    path.write_text(json.dumps({"image_id": 42, "caption": "A", "tokens": 1, "finish_reason": "length"}))
    assert read_captions(path) == [{"image_id": 42, "caption": "A", "finish_reason": "length"}]


def test_half_of_a_surrogate_pair_can_be_written_again(tmp_path):
    path = tmp_path / "a.json"
    path.write_text(r'[{"image_id": 1, "caption": "a \ud83d dog \ud83d\ude00"}]')
    (caption,) = read_captions(path)
    assert caption["caption"] == "a \ufffd dog \U0001f600"
    caption["caption"].encode()


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", "[]", "holds no captions"),
        ("a.jsonl", "\n", "holds no captions"),
        ("a.jsonl", "", "holds no captions"),
        ("a.json", "{}", "its fields: none"),
        ("a.json", '{"42": 5}', "text is expected, not a number"),
        ("a.json", '{"42": ["dog", "person"], "7": []}', "is a ground truth, which --ground-truth takes"),
        ("a.json", '{"42": "a", "42": "b"}', "has the key '42' twice"),
        ("a.json", '[{"image_id": 1, "caption"', "cut off in the value at line 1"),
        ("a.jsonl", '{"image_id": 1, "caption": "a"}\n{"image_id": 2, "cap', "cut off in the value at line 2"),
        ("a.jsonl", '{"image_id": 1, "cap\n{"image_id": 2, "caption": "a"}', "Invalid control character.*line 1"),
        ("a.json", "image_id,caption\n1,a", "is not valid JSON: Expecting value, line 1"),
        ("a.json", '[{"caption": "a"}]', 'caption 1 has no "image_id"; --image-key and .*its fields: caption'),
        ("a.json", '[{"image_id": 1, "text": "a"}]', 'has no "caption"; write --caption-key text'),
        ("a.json", "[{}]", "its fields: none"),
        ("a.json", "[42]", "caption 1 is no object"),
        ("a.json", "42", "is no object"),
        ("a.json", "null", "is no object"),
        ("a.json", '[{"image_id": 1, "caption": 5}]', "text is expected, not a number"),
        ("a.json", '[{"image_id": 1, "caption": null}]', "text is expected, not nothing"),
        ("a.json", '[{"image_id": 1, "caption": []}]', "text is expected, not a list"),
        ("a.json", '[{"image_id": 1, "caption": {"a": 1}}]', "text is expected, not an object"),
        ("a.json", '[{"image_id": 1, "caption": ["a", 5]}]', "text is expected, not a number"),
        ("a.json", '[{"image_id": "dog.jpg", "caption": "a"}]', "'dog.jpg' is no image id"),
        ("a.json", '[{"image_id": null, "caption": "a"}]', "None is no image id"),
        ("a.json", '[{"image_id": -5, "caption": "a"}]', "-5 is no image id"),
        ("a.json", '[{"image_id": "²", "caption": "a"}]', "'²' is no image id"),
        ("a.json", '[{"image_id": Infinity, "caption": "a"}]', "inf is no image id"),
        ("a.json", '[{"image_id": NaN, "caption": "a"}]', "nan is no image id"),
        ("a.csv", "1,a dog", 'the column "image_id" not in its header .1, a dog.; --image-key'),
        (
            "a.csv",
            "image_id,text\n1,a dog",
            'the column "caption" not in its header .image_id, text.; write --caption-key text',
        ),
        ("a.csv", "image_id,caption,caption\n1,a,b", 'the column "caption" twice in its header'),
        ("a.csv", "image_id,caption\n1,a dog, a cat\n", "line 2 has 3 fields and the header 2"),
        ("a.csv", 'image_id,caption\n1,"a dog\n', "line 2 is no table: unexpected end of data"),
        ("a.csv", "image_id,caption\n", "holds no captions"),
        ("a.csv", "image_id,caption\n²,a", "'²' is no image id"),
        ("a.txt", "\0\0", "is no JSON, and as a table"),
    ],
)
def test_files_that_cannot_be_scored(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(RequestError, match=message) as caught:
        read_captions(path)
    assert str(path) in str(caught.value) and len(str(caught.value)) < 400 + len(str(path))


HUGE = {
    "4,000 digits": ('[{"image_id": ' + "9" * 4000 + ', "caption": "a"}]', "a number of over 40 digits is no image id"),
    "5,000 digits": ('\n[{"image_id": ' + "9" * 5000 + "}]", "a number after line 2 has over 4300 digits"),
    "deep list": ("[" * 100_000, "nested too deeply"),
    "deep object": ('{"a":' * 100_000, "nested too deeply"),
    "deep id": ('[{"image_id": ' + "[" * 500 + "]" * 500 + ', "caption": "a"}]', "is no image id"),
    "deep caption": ('[{"image_id": 1, "caption": ' + "[" * 500 + "]" * 500 + "}]", "text is expected"),
    "long field": ('[{"' + "x" * 10**6 + '": 1}]', "its fields: xxxx"),
    "many fields": (json.dumps([{f"field {n}": n for n in range(10**4)}]), "its fields: field 0, field 1"),
    "long name": (
        '[{"image_id": 1, "' + "x" * 10**4 + '": "a dog"}]',
        "--image-key and --caption-key name",
    ),
    "long header": ("x" * 10**5 + ",y\n1,2", "not in its header"),
    "long cell": ("image_id,caption\n1," + "x" * 10**6, "is no table: field larger than field limit"),
}


@pytest.mark.parametrize("name", HUGE)
def test_what_is_too_large_or_too_deep_is_said_shortly(tmp_path, name):
    path = tmp_path / "a.txt"
    path.write_text(HUGE[name][0])
    with pytest.raises(RequestError, match=HUGE[name][1]) as caught:
        read_captions(path)
    assert str(path) in str(caught.value) and len(str(caught.value)) < 1000
    with pytest.raises(ValueError, match="over 40 digits"):
        parse_image_id(10**5000)


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_files_that_cannot_be_read(tmp_path, name):
    path = tmp_path / name
    with pytest.raises(RequestError, match="does not exist"):
        read_captions(path)
    path.write_bytes(b"\xff\xfe[]")
    with pytest.raises(RequestError, match=r"is not UTF-8 text .UTF-16.; save it as UTF-8"):
        read_captions(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(RequestError, match="cannot be read"):
        read_captions(path)


def test_standard_input(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(LAYOUTS["lines"].encode())))
    assert read_captions(Path("-")) == CAPTIONS
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
    with pytest.raises(RequestError, match="captions of standard input"):
        read_captions(Path("-"))


DAMAGES = [
    '"',
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\\",
    "\\ud800",
    "null",
    "1e999",
    "NaN",
    "²",
    "\0",
    "\ufeff",
    "\n",
    "9" * 5000,
]
leaf = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just("²"))
values = st.recursive(
    leaf, lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3))
)


def read_or_refuse(text: str, name: str) -> None:
    """Whatever a file holds, reading it ends in captions that can be written or in one line."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        try:
            found = read_captions(path)
        except RequestError as error:
            assert str(path) in str(error) and "\n" not in str(error) and len(str(error)) < 900
        else:
            assert found and all(0 <= each["image_id"] < 10**18 for each in found)
            json.dumps(found, ensure_ascii=False).encode()


@given(st.sampled_from([*LAYOUTS.values()]), st.data(), st.sampled_from(["a.json", "a.csv", "a"]))
@settings(max_examples=300, deadline=None)
def test_damaged_layouts(text, data, name):
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        text = text[:at] + data.draw(st.sampled_from(DAMAGES)) + text[at + data.draw(st.integers(0, 9)) :]
    read_or_refuse(text, name)


@given(values, st.sampled_from(["image_id", "caption", None]))
@settings(max_examples=300, deadline=None)
def test_wrong_shapes(value, key):
    read_or_refuse(json.dumps([{**CAPTIONS[0], key: value}] if key else value), "a.json")


def test_a_value_of_any_depth_is_short_in_a_message(tmp_path):
    value = "deep" * 20
    for _ in range(6):
        value = [value] * 6
    path = tmp_path / "captions.json"
    path.write_text(json.dumps([{"image_id": value, "caption": "A dog."}]))
    with pytest.raises(RequestError, match=r"\.\.\..* is no image id") as refused:
        read_captions(path)
    assert len(str(refused.value)) < 300 + len(str(path))
