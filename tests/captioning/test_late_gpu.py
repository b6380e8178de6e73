"""The engine on a GPU that works behind the host: what it reads is there, and streams wait for each other."""

import copy
import dataclasses

import numpy as np
import pytest
import torch
from engine_requests import METHODS, check, requests_of, vlm
from late_gpu import GPU, LateGpu, Stream

from kvtune.captioning import Captioner, paged_grid
from kvtune.captioning.host_copy import HostCopy
from kvtune.methods.sending import sent, to_device
from kvtune.models.spread import spread


def test_captions_are_those_of_a_device_that_is_waited_for(monkeypatch):
    monkeypatch.setattr(paged_grid, "step_graphs", lambda *_: None)
    requests = requests_of([(n % 3, n) for n in range(0, len(METHODS), 3)])
    with LateGpu():
        model = dataclasses.replace(vlm(), hf_model=copy.deepcopy(vlm().hf_model))
        spread(model.hf_model, [GPU], [range(model.n_layers)])
        captioner = Captioner(model, max_new_tokens=5, lanes=4)
        for some in (requests, requests[:4]):  # the second time with prompts that were kept
            captions = list(captioner.run(some))
            assert len(check(captions, requests, "grouped", 5)) == len(some)


def test_what_goes_and_comes_is_what_it_was():
    with LateGpu():
        there = to_device(np.arange(5), GPU) + sent(torch.ones(5), GPU)
        copies = [HostCopy(there), HostCopy(2 * there)]
        there += 1
        one, twice = (copy.read() for copy in copies)
        assert one.tolist() == [1, 2, 3, 4, 5] and twice.tolist() == [2, 4, 6, 8, 10]
        assert sent(there, torch.device("cpu")).tolist() == [2, 3, 4, 5, 6]  # which is waited for


def read_early(there):
    host = torch.empty(5, pin_memory=True).copy_(there, non_blocking=True)
    assert torch.equal(host, torch.zeros(5)), "it is not there yet"


def wait_for_another_stream(there):
    host, copied = torch.empty(5, pin_memory=True).copy_(there, non_blocking=True), torch.cuda.Event()
    copied.record(Stream(GPU))
    copied.synchronize()
    assert torch.equal(host, torch.zeros(5)), "it is not there yet"


def copy_twice_to_one_place(there):
    host = torch.empty(5, pin_memory=True)
    for number in range(2):
        host.copy_(there + number, non_blocking=True)


def write_what_is_sent(there):
    source = torch.zeros(5).pin_memory()
    for number in range(2):
        there.copy_(source.fill_(number), non_blocking=True)


def use_in_another_stream(there):
    with torch.cuda.stream(Stream(GPU)):
        there += 1


def write_what_another_stream_reads(there):
    aside = Stream(GPU)
    aside.wait_stream(torch.cuda.current_stream(GPU))
    with torch.cuda.stream(aside):
        there + 1
    there.zero_()


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (read_early, "not there yet"),
        (wait_for_another_stream, "not there yet"),
        (copy_twice_to_one_place, "another copy"),
        (write_what_is_sent, "written while it was copied"),
        (lambda there: torch.zeros(5).to(GPU, non_blocking=True), "not pinned"),
        (lambda there: torch.zeros(5).copy_(there, non_blocking=True), "not pinned"),
        (use_in_another_stream, "has not been waited for"),
        (write_what_another_stream_reads, "has not been waited for"),
    ],
)
def test_faults_are_seen(fault, why):
    with LateGpu(), pytest.raises(AssertionError, match=why):
        fault(torch.zeros(5, device=GPU))
