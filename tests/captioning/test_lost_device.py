"""A GPU that is lost midway, played on the CPU: what was written is given, the rest is told in one line."""

import functools
import os
import signal

import pytest
import torch
from engine_requests import METHODS, check, requests_of, vlm
from failing_device import FailingDevice
from graph_like import like_a_gpu
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kvtune.captioning import Captioner, host_copy
from kvtune.captioning.host_copy import Arrival
from kvtune.errors import LostDeviceError

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


class Copied:
    """An event that has come after so many looks; Ctrl-C comes at the first if it is wanted."""

    def __init__(self, looks, interrupts=False):
        self.left, self.interrupts = looks, interrupts

    def record(self, stream):
        pass

    def query(self):
        self.left -= 1
        if self.interrupts:
            os.kill(os.getpid(), signal.SIGINT)
        return self.left < 0


def wait_for(monkeypatch, event):
    monkeypatch.setattr(torch.cuda, "Event", lambda: event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: None)
    Arrival(torch.device("cuda")).wait()


def test_a_copy_is_waited_for_until_it_has_come(monkeypatch):
    event = Copied(5)
    wait_for(monkeypatch, event)
    assert event.left == -1


def test_an_interruption_is_heard_by_who_waits_for_a_gpu_that_hangs(monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        wait_for(monkeypatch, Copied(float("inf"), interrupts=True))


def test_a_gpu_that_hangs_is_not_waited_for_for_ever(monkeypatch):
    monkeypatch.setattr(host_copy, "MOST_SECONDS", 0.0)
    with pytest.raises(LostDeviceError, match=r"the GPU hangs: .*; see nvidia-smi"):
        wait_for(monkeypatch, Copied(float("inf")))
