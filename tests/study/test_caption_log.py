"""Caption files: whole lines only, whatever happened to the last one."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvtune.errors import KvtuneError
from kvtune.study.caption_log import CaptionLog, count_captions, read_captions
from kvtune.study.jsonl import LineWriter

LINE = {"image_id": 42, "caption": "A dog.", "tokens": 3, "finish_reason": "eos"}
texts = st.text(max_size=30)


def filled(path: Path, captions: list[str]) -> None:
    log = CaptionLog(path)
    for number, text in enumerate(captions):
        log.append(number, text, len(text), "eos")
    log.close()


def test_a_line_is_what_the_design_says(tmp_path: Path) -> None:
    path = tmp_path / "captions" / "trial-0007.jsonl"
    log = CaptionLog(path)
    log.append(42, "Ein Hund über\neinem Stuhl.", 96, "length")
    assert path.read_text(encoding="utf-8") == (
        '{"image_id": 42, "caption": "Ein Hund über\\neinem Stuhl.", "tokens": 96, "finish_reason": "length"}\n'
    )
    assert 42 in log and 43 not in log and len(log) == 1 and log.image_ids == [42]
    log.close()


def test_every_caption_is_on_disk_before_the_next(tmp_path: Path) -> None:
    log = CaptionLog(tmp_path / "log.jsonl")
    for number in range(5):
        log.append(number, "A cat.", 2, "eos")
        assert list(read_captions(tmp_path / "log.jsonl")) == list(range(number + 1))
        assert count_captions(tmp_path / "log.jsonl") == number + 1


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(captions=st.lists(texts, min_size=1, max_size=5), data=st.data())
def test_cut_at_any_byte_only_the_last_caption_is_lost(
    tmp_path: Path, captions: list[str], data: st.DataObject
) -> None:
    path = tmp_path / "log.jsonl"
    path.unlink(missing_ok=True)
    filled(path, captions)
    whole = path.read_bytes()
    cut = data.draw(st.integers(0, len(whole)))
    path.write_bytes(whole[:cut])
    kept = whole[:cut].count(b"\n")
    assert list(read_captions(path)) == list(range(kept))
    assert path.read_bytes() == whole[:cut], "reading changes nothing"
    log = CaptionLog(path)
    assert log.image_ids == list(range(kept))
    for number in range(kept, len(captions)):
        log.append(number, captions[number], len(captions[number]), "eos")
    log.close()
    assert path.read_bytes() == whole


def test_opening_cuts_the_torn_line_off(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps(LINE) + "\n" + json.dumps(LINE | {"image_id": 43}))
    CaptionLog(path).close()
    assert path.read_text() == json.dumps(LINE) + "\n"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([LINE | {"score": 1}], "line 1: unknown key 'score'; a caption line has image_id, caption"),
        ([LINE, {"image_id": 43, "caption": "x", "tokens": 1}], "line 2: the key 'finish_reason' is missing"),
        ([LINE | {"finish_reason": "bored"}], "finish_reason must be one of eos, length, stop"),
        ([LINE | {"image_id": "42"}], "image_id and tokens must be whole numbers"),
        ([LINE | {"image_id": True}], "image_id and tokens must be whole numbers"),
        ([LINE | {"tokens": float("inf")}], "image_id and tokens must be whole numbers"),
        ([LINE, LINE], "line 2: image 42 has a caption already"),
        (["text"], "line 1 is not a JSON object"),
    ],
)
def test_what_is_no_caption_line_is_named(tmp_path: Path, lines: list[Any], message: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for reading in (read_captions, CaptionLog):
        with pytest.raises(KvtuneError, match=message) as caught:
            reading(path)
        assert str(path) in str(caught.value)


@pytest.mark.parametrize("data", [b"9" * 5000, b"[" * 10**5, b'{"caption": "\xff"}', b'{"a":' * 10**5])
def test_a_line_that_cannot_be_read_is_named(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(json.dumps(LINE).encode() + b"\n" + data + b"\n")
    with pytest.raises(KvtuneError, match="line 2 is not a JSON object"):
        read_captions(path)


def test_half_of_a_surrogate_pair_can_be_written_again(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text(json.dumps(LINE | {"caption": "a \ud83d dog"}) + "\n")
    (line,) = read_captions(path).values()
    assert line["caption"].encode().decode() == "a \ufffd dog"


def test_a_broken_line_before_the_last_is_named(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"image_id": 4\n' + json.dumps(LINE) + "\n")
    with pytest.raises(KvtuneError, match="line 1 is not a JSON object"):
        CaptionLog(path)


def test_no_caption_twice(tmp_path: Path) -> None:
    log = CaptionLog(tmp_path / "log.jsonl")
    log.append(1, "A.", 1, "eos")
    with pytest.raises(ValueError, match="image 1"):
        log.append(1, "B.", 1, "eos")


def test_a_missing_file_has_no_captions(tmp_path: Path) -> None:
    assert read_captions(tmp_path / "none.jsonl") == {}
    assert count_captions(tmp_path / "none.jsonl") == 0


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.jsonl"
    log = CaptionLog(path)
    log.append(1, "A dog.", 3, "eos")
    before = path.read_bytes()
    write = os.write

    def full(file: int, data: bytes) -> int:
        if len(data) < 20:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, data[: len(data) - 10])

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(KvtuneError, match="No space left on device; free some space"):
        log.append(2, "A cat and a bird.", 6, "eos")
    assert path.read_bytes() == before
    monkeypatch.undo()
    log.append(2, "A cat and a bird.", 6, "eos")
    assert list(read_captions(path)) == [1, 2]


def test_a_short_write_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:7]))
    writer = LineWriter(tmp_path / "x.jsonl")
    writer.append({"a": "some longer text"})
    assert (tmp_path / "x.jsonl").read_text() == '{"a": "some longer text"}\n'


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KvtuneError, match="cannot write"):
        LineWriter(tmp_path / "file" / "log.jsonl")
