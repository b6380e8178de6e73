"""What opens http and https addresses, and gives up where an answer does not begin in time."""

import contextlib
import http.client
import socket
import urllib.request
from threading import Timer


class _Connection(http.client.HTTPConnection):
    """A connection whose answer begins in time: status and headers may not drip in either."""

    _is_cut = False

    def getresponse(self) -> http.client.HTTPResponse:
        assert self.timeout is not None  # every request has one
        timer = Timer(self.timeout, self._cut)
        timer.daemon = True
        timer.start()
        try:
            response = super().getresponse()
        except (OSError, http.client.HTTPException):  # what comes after the cut resets the connection
            if not self._is_cut:
                raise
        finally:
            timer.cancel()
        if self._is_cut:
            raise TimeoutError("the answer begins too slowly")
        return response

    def _cut(self) -> None:
        self._is_cut = True
        with contextlib.suppress(OSError, AttributeError):
            self.sock.shutdown(socket.SHUT_RDWR)


class _SecureConnection(_Connection, http.client.HTTPSConnection):
    """The same over TLS."""


class _Handler(urllib.request.HTTPHandler):
    def http_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_Connection, request)


class _SecureHandler(urllib.request.HTTPSHandler):
    def https_open(self, request: urllib.request.Request) -> http.client.HTTPResponse:
        return self.do_open(_SecureConnection, request)


def _opener() -> urllib.request.OpenerDirector:
    """What opens http and https addresses and no others, wherever a server redirects."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
        _Handler(),
        _SecureHandler(),
    ):
        opener.add_handler(handler)
    return opener


OPENER = _opener()
