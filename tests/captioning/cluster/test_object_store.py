"""What does not fit Ray's object store any more, nor the disk that it spills to, ends a command in a line."""

from types import SimpleNamespace

import pytest

pytest.importorskip("ray", reason="pip install 'kvtune[cluster]'")

from ray.exceptions import ObjectStoreFullError, OutOfDiskError

from kvtune.captioning.cluster.ray_backend import RayBackend
from kvtune.errors import KvtuneError


@pytest.mark.parametrize("kind", [ObjectStoreFullError, OutOfDiskError])
def test_it_is_full(kind):
    def remote(*_):
        raise kind("Local disk is full\nThe object cannot be created")

    backend = RayBackend.__new__(RayBackend)
    with pytest.raises(KvtuneError, match=r"^Ray's object store is full, and so is the disk .*BYTES$"):
        backend.call(SimpleNamespace(bring=SimpleNamespace(remote=remote)), "bring", "a.jpg", b"")
