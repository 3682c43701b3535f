"""A page on this machine's own network interface, for one reader: the page, and what changes, as server-sent events.

Two things keep others out. Only who was told the address knows its secret part; and a request is answered only under
this machine's own names, so that no site can have a browser read the page under a name of its own that it has made
point here (DNS rebinding). No path leads to a file.
"""

from __future__ import annotations

import secrets
import sys
import threading
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from lorabench.core.errors import InputError

ADDRESS = "127.0.0.1"
HOST_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
"""Under which a browser may ask: with any port, so that one that is forwarded (`ssh -L`) works."""
_SILENCE_SECONDS = 15.0
"""After so long without a change a comment is sent: what listens no more is noticed."""


class Shown:
    """What is served now, and whoever waits for something newer. Its methods may be called from any thread."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._page = b""
        self._events = {"version": "", "steps": ""}
        """By name: the last one of each."""

    @property
    def page(self) -> bytes:
        """The page's HTML."""
        with self._changed:
            return self._page

    def show(self, page: bytes, version: str) -> None:
        """Serve another page from now on."""
        with self._changed:
            self._page = page
            self._tell("version", version)

    def tell(self, name: str, data: str) -> None:
        """Send an event (one line of data) to whoever listens, now or later, unless it was the last of its name."""
        with self._changed:
            self._tell(name, data)

    def _tell(self, name: str, data: str) -> None:
        if self._events[name] != data:
            self._events[name] = data
            self._changed.notify_all()

    def newer(self, seen: dict[str, str], seconds: float) -> dict[str, str]:
        """Events other than those `seen`, after at most so many seconds; `seen` holds them then."""

        def found() -> dict[str, str]:
            return {name: data for name, data in self._events.items() if data and seen.get(name) != data}

        with self._changed:
            self._changed.wait_for(lambda: bool(found()), seconds)
            events = found()
        seen.update(events)
        return events


class PageServer(ThreadingHTTPServer):
    """Serves `shown` at `address` from a thread of its own while inside."""

    daemon_threads = True

    def __init__(self, port: int = 0) -> None:
        """`port` 0: a free one. Raises InputError where it cannot be had."""
        try:
            super().__init__((ADDRESS, port), _Handler)
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or "it is no port"
            raise InputError(f"--port {port}: {why}; give another, or none for one that is free") from None
        self.shown = Shown()
        self.root = f"/{secrets.token_urlsafe(16)}/"
        self.address = f"http://{ADDRESS}:{self.server_port}{self.root}"

    def __enter__(self) -> PageServer:
        threading.Thread(target=self.serve_forever, name="lorabench-page", daemon=True).start()
        return self

    def __exit__(self, *raised: object) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that went away is no mistake."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """GET of the page and of its events; anything else is refused."""

    server_version, sys_version = "lorabench", ""
    timeout = 60.0
    if TYPE_CHECKING:
        server: PageServer

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if not self._is_asked_by_own_name():
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST, "Ask under 127.0.0.1 or localhost")
        elif path == self.server.root:
            self._begin("text/html; charset=utf-8")
            self.wfile.write(self.server.shown.page)
        elif path == f"{self.server.root}events":
            self._begin("text/event-stream")
            with suppress(OSError):
                self._send_events()
        else:
            self.send_error(HTTPStatus.NOT_FOUND, "Only the page that lorabench watch printed is here")

    def _is_asked_by_own_name(self) -> bool:
        hosts = self.headers.get_all("Host") or []
        with suppress(ValueError):
            return len(hosts) == 1 and urlsplit(f"//{hosts[0]}").hostname in HOST_NAMES
        return False

    def _begin(self, content_type: str) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", content_type)
        self.send_header("Cache-Control", "no-store")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Content-Security-Policy", "frame-ancestors 'none'")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.end_headers()

    def _send_events(self) -> None:
        """Until whoever listens goes away."""
        seen: dict[str, str] = {}
        while True:
            events = self.server.shown.newer(seen, _SILENCE_SECONDS)
            lines = [f"event: {name}\ndata: {data}\n\n" for name, data in events.items()] or [": still here\n\n"]
            self.wfile.write("".join(lines).encode("utf-8"))
            self.wfile.flush()

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the terminal is for the address and for problems."""
