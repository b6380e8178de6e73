"""Whether a Ray cluster answers at an address, and asks for a token. Ray is told before it is imported."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

import grpc

from kvtune.errors import RequestError
from kvtune.text import quoted

CONNECT_SECONDS = 10.0
"""In which a cluster must answer."""

_ANY_CALL = "/ray.rpc.NodeInfoGcsService/GetClusterId"


def check_cluster(cluster: str) -> None:
    """Refuse an address where no Ray answers, which Ray itself would try for minutes.

    A cluster asks for a token if it was started where there was one, as there is once Ray was used on one machine. Who
    connects has to know, by ``RAY_AUTH_MODE``: without the token it is refused, and where none is asked for, calls back
    would lack it, and its workers end as soon as they begin.

    Parameters
    ----------
    cluster
        ``auto`` or ``HOST:PORT``.

    Raises
    ------
    RequestError
        If it is no address, or nobody answers, or something else.
    """
    address = _running_here() if cluster == "auto" else cluster
    if address is None or os.environ.get("RAY_USE_TLS", "0") != "0":
        return
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal() or "/" in host:
        raise RequestError(f"--cluster must be auto or HOST:PORT, as in 10.0.0.1:6379, not {quoted(address)}")
    try:
        socket.create_connection((host.strip("[]"), int(port)), CONNECT_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise no_cluster(address, getattr(error, "strerror", None) or str(error)) from error
    answer = _answer(address)
    if answer in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED):
        raise no_cluster(address, "something else listens there")
    if answer == grpc.StatusCode.UNAUTHENTICATED:
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def no_cluster(cluster: str, why: str) -> RequestError:
    return RequestError(
        f"no Ray cluster answers at {quoted(cluster)} ({why}); start one with ray start --head, or give "
        "--cluster HOST:PORT"
    )


def _running_here() -> str | None:
    """The address of the cluster that ``auto`` stands for, where ``ray start`` has put it down."""
    if address := os.environ.get("RAY_ADDRESS"):
        return None if address == "auto" else address
    file = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / "ray" / "ray_current_cluster"
    return file.read_text("utf-8").strip() if file.is_file() else None


def _answer(address: str) -> grpc.StatusCode:
    """How a call without a token is answered."""
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        try:
            channel.unary_unary(_ANY_CALL)(b"", timeout=CONNECT_SECONDS)
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code
        return grpc.StatusCode.OK
