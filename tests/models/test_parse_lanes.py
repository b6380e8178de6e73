"""What ``--lanes`` may say."""

import pytest

from kvtune.errors import RequestError
from kvtune.models.options import parse_lanes


def test_a_number_or_auto():
    assert parse_lanes("auto") == "auto"
    assert parse_lanes("17") == 17


@pytest.mark.parametrize("text", ["", "0", "-1", "2.5", "²", "٣", "x", "AUTO", "9" * 5000, "1 "])
def test_anything_else_is_refused_in_a_line(text):
    with pytest.raises(RequestError, match="--lanes must be auto or a whole number above 0") as refused:
        parse_lanes(text)
    assert len(str(refused.value)) < 200
