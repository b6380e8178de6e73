"""A GPU that is lost midway, played on the CPU: what was written is given, the rest is told in one line."""

import functools

import pytest
from engine_requests import METHODS, check, requests_of, vlm
from failing_device import FailingDevice
from graph_like import like_a_gpu
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvtune.captioning import Captioner
from kvtune.device_errors import LostDeviceError

REQUESTS = requests_of([(n % 3, n % len(METHODS)) for n in range(8)])


@functools.cache
def operations():
    """Of a whole run."""
    with pytest.MonkeyPatch.context() as patch, FailingDevice() as device:
        like_a_gpu(patch)
        list(Captioner(vlm(), max_new_tokens=6, lanes=4).run(REQUESTS))
    return device.count


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(share=st.floats(0, 0.999))
def test_lost_at_any_operation(share):
    """The first error is the one that is told, and nothing that was set for the run stays."""
    captions = []
    with pytest.MonkeyPatch.context() as patch:
        like_a_gpu(patch)
        captioner = Captioner(vlm(), max_new_tokens=6, lanes=4)
        said = "the GPU does nothing more for this process: CUDA error: an illegal memory access was encountered; "
        with pytest.raises(LostDeviceError, match=said), FailingDevice(int(share * operations())):
            captions.extend(captioner.run(REQUESTS))
        check(captions, REQUESTS, "grouped", 6)
        again = list(captioner.run(REQUESTS))
    assert check(again, REQUESTS, "grouped", 6).keys() == set(range(8))
