"""The record reader says what Python's own JSON reader says, however its chunks fall."""

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from kvtune.coco import records
from kvtune.coco.records import read_records

VALUE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
DOCUMENT = st.dictionaries(st.text(), VALUE, max_size=4)


def as_records(document):
    return [(key, each) for key, value in document.items() for each in (value if isinstance(value, list) else [value])]


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("records") / "file.json"


@settings(max_examples=300)
@given(document=DOCUMENT, indent=st.sampled_from([None, 0, 3]), chunk=st.integers(1, 9))
def test_as_json(path, document, indent, chunk):
    path.write_text(json.dumps(document, indent=indent))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "CHUNK", chunk)
        assert list(read_records(path)) == as_records(document)


@settings(max_examples=500)
@given(
    document=DOCUMENT, place=st.integers(0, 200), put=st.sampled_from(["", "}", "]", ",", '"', "[[", "1e", "\\", "\0"])
)
@example(document={"a": [1]}, place=9, put=",")
def test_what_is_damaged_is_refused_where_json_refuses_it(path, document, place, put):
    """Or both read it: damage inside a text is text."""
    text = json.dumps(document)
    text = text[:place] + put + (text[place + 1 :] if put else "")
    path.write_text(text)
    try:
        expected = json.loads(
            text, object_pairs_hook=lambda pairs: dict(pairs) if len(dict(pairs)) == len(pairs) else 1 / 0
        )
    except (ValueError, ZeroDivisionError):
        expected = None
    if isinstance(expected, dict):
        assert list(read_records(path)) == as_records(expected)
    else:
        try:
            found = list(read_records(path))
        except ValueError:
            return
        assert json.loads(text) is not None and found is not None  # a key that is there twice: each has its records


@pytest.mark.parametrize(
    "text",
    ["", " ", "[]", "1", '"a"', "{", '{"a"', '{"a":', '{"a":[', '{"a":[1', '{"a":[1,', '{"a":[1]', '{"a":[1]}}', "{}x",
     "{1: 2}", '{"a" [1]}', '{"a":[1 2]}', '{"a":NaN}', '{"a":[Infinity]}',
     '{"a":' + "[" * 100_000, '{"a":[' + "9" * 5000 + "]}"],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_what_is_no_object_is_refused(path, text):
    path.write_text(text)
    with pytest.raises(ValueError):
        list(read_records(path))


def test_undecodable_bytes_and_byte_order_marks(path):
    path.write_bytes(b'{"a": ["\xff"]}')
    with pytest.raises(ValueError):
        list(read_records(path))
    path.write_bytes(b'\xef\xbb\xbf{"a": [1]}')
    assert list(read_records(path)) == [("a", 1)]


def test_an_endless_record_is_not_kept(path, monkeypatch):
    monkeypatch.setattr(records, "LARGEST", 1000)
    path.write_text('{"a": ["' + "x" * 10_000_000)
    with pytest.raises(ValueError, match="too long"):
        list(read_records(path))
