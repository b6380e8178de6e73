"""A web server on this machine that misbehaves as told: drops, truncates, is busy, has lost files."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """Serves ``files`` (path to content).

    ``faults`` maps a path to what its first answers are, in order: a status code; ``"drop"`` (connection closed
    without an answer); ``"truncate"`` (half of what Content-Length says); ``"page"`` (an HTML page in place of the
    file); ``"hang"`` (half, then silence). Once they are used up the file is served. ``ranges`` False ignores Range;
    ``starts`` records from which byte files were sent; ``lengths`` False leaves Content-Length out.

    ``raw`` maps a path to bytes that are sent as the whole answer; ``drips`` to what of an answer comes byte by byte
    without an end: ``"headers"`` or ``"body"``.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.faults: dict[str, list[int | str]] = {}
        self.retry_after: str | None = None
        self.ranges = self.lengths = True
        self.raw: dict[str, bytes] = {}
        self.drips: dict[str, str] = {}
        self.requests: Counter[str] = Counter()
        self.sent: Counter[str] = Counter()
        self.starts: list[tuple[str, int]] = []
        self.times: list[float] = []
        self.chunk_delay = 0.0
        self.lock = threading.Lock()
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: object) -> None:
        """Clients that go away are part of the tests."""


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None: ...

    def do_GET(self) -> None:
        server = self.server
        with server.lock:
            server.requests[self.path] += 1
            server.times.append(time.monotonic())
            faults = server.faults.get(self.path)
            fault = faults.pop(0) if faults else None
        self.close_connection = True
        if self.path in server.raw:
            self.wfile.write(server.raw[self.path])
            return
        if self.path in server.drips:
            self.drip(b"HTTP/1.1 200 OK\r\n", server.drips[self.path])
            return
        if fault == "drop":
            return
        if isinstance(fault, int):
            self.send_response(fault)
            if server.retry_after is not None:
                self.send_header("Retry-After", server.retry_after)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = b"<html>Please log in</html>" if fault == "page" else server.files.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = 0
        if server.ranges and (wanted := self.headers.get("Range")):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        else:
            self.send_response(200)
        rest = content[start:]
        server.starts.append((self.path, start))
        if server.lengths:
            self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        if fault in ("truncate", "hang"):
            rest = rest[: len(rest) // 2]
        for begin in range(0, len(rest), 1 << 14):
            # Counted before it is written: the reader may be done before this thread runs again.
            server.sent[self.path] += len(rest[begin : begin + (1 << 14)])
            self.wfile.write(rest[begin : begin + (1 << 14)])
            time.sleep(server.chunk_delay)
        if fault == "hang":
            self.wfile.flush()
            server.closing.wait(30)

    def drip(self, status: bytes, what: str) -> None:
        self.wfile.write(status + (b"\r\n" if what == "body" else b"X: "))
        while not self.server.closing.wait(0.02):
            try:
                self.wfile.write(b"x")
            except OSError:
                return


@contextmanager
def running_server() -> Iterator[Server]:
    """A server in a thread of its own, gone at the end."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
