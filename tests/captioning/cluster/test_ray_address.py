"""An address at which no Ray cluster is, told in a line and at once."""

import http.server
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

pytest.importorskip("ray", reason="pip install 'kvtune[cluster]'")

import grpc

from kvtune.captioning import open_captioner
from kvtune.captioning.cluster.ray_address import check_cluster
from kvtune.errors import RequestError
from kvtune.models.options import EngineOptions, ModelOptions


def refused(address):
    with pytest.raises(RequestError) as told:
        open_captioner(ModelOptions("demo", engine=EngineOptions("cpu", workers=1, cluster=address)))
    assert "\n" not in str(told.value)
    return str(told.value)


def test_nobody_listens_there(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    why = f"no Ray cluster answers at '127.0.0.1:{port}' (Connection refused); start one with ray start --head"
    assert refused(f"127.0.0.1:{port}").startswith(why)
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{port}")
    assert refused("auto").startswith(why)


def test_there_is_no_such_machine(monkeypatch):
    def nobody(address, timeout):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "create_connection", nobody)
    assert "no Ray cluster answers at 'nowhere:6379' (Name or service not known)" in refused("nowhere:6379")


def test_something_else_listens_there():
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{server.server_port}"
        assert f"no Ray cluster answers at '{address}' (something else listens there)" in refused(address)
        server.shutdown()


def test_whoever_listens_there_says_nothing(monkeypatch):
    monkeypatch.setattr("kvtune.captioning.cluster.ray_address.CONNECT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        assert "(something else listens there)" in refused(f"127.0.0.1:{server.getsockname()[1]}")


@pytest.mark.parametrize(
    ("mode", "code", "then"),
    [
        (None, grpc.StatusCode.OK, None),
        (None, grpc.StatusCode.UNIMPLEMENTED, None),
        (None, grpc.StatusCode.UNAUTHENTICATED, "token"),
        ("disabled", grpc.StatusCode.UNAUTHENTICATED, "disabled"),
    ],
)
def test_a_token_is_shown_where_it_is_asked_for(mode, code, then, tmp_path, monkeypatch):
    """As Ray's head answers, found at its address and by the file that ``ray start`` leaves."""

    def answer(request, context):
        if code is not grpc.StatusCode.OK:
            context.abort(code, "InvalidAuthToken")
        return b""

    handler = SimpleNamespace(service=lambda call: grpc.unary_unary_rpc_method_handler(answer))
    server = grpc.server(ThreadPoolExecutor(1), handlers=[handler])
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    for name in ("RAY_AUTH_MODE", "RAY_ADDRESS"):
        monkeypatch.setenv(name, mode or "")  # put back at the end
        if not mode or name == "RAY_ADDRESS":
            monkeypatch.delenv(name)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(address)
    for cluster in (address, "auto"):
        check_cluster(cluster)
        assert os.environ.get("RAY_AUTH_MODE") == then
    server.stop(None)


@pytest.mark.parametrize("address", ["nowhere", "ray://10.0.0.1:10001", ":6379", "10.0.0.1:", "http://a:1"])
def test_it_is_no_address(address):
    assert "--cluster must be auto or HOST:PORT, as in 10.0.0.1:6379, not" in refused(address)
