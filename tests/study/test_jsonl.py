"""Files of JSON lines that are appended to."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvtune.study.jsonl import LineWriter


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.lists(st.sampled_from([b"\n", b"x"]), max_size=12).map(b"".join))
def test_what_follows_the_last_line_break_is_cut_off(
    data: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the line break is in the blocks that are read from the end."""
    monkeypatch.setattr("kvtune.study.jsonl._BLOCK", 3)
    path = tmp_path / "lines.jsonl"
    path.write_bytes(data)
    writer = LineWriter(path)
    writer.append({"a": 1})
    writer.close()
    assert path.read_bytes() == data[: data.rfind(b"\n") + 1] + b'{"a": 1}\n'
