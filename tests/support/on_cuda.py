"""The mark of tests that need a GPU: `pytest -m cuda` runs them alone."""

import pytest
import torch


def needs_cuda(test):
    """Mark a test, and skip it where there is no CUDA device."""
    there = torch.cuda.is_available()
    return pytest.mark.cuda(pytest.mark.skipif(not there, reason="no CUDA device")(test))
