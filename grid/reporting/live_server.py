"""Serves the page that watches a grid, on this machine alone unless told otherwise, to whoever has
the token.

Every request must carry the token: in the address, once, which answers with a cookie and leads to
an address without it; then in that cookie; or as a bearer token. Nothing is logged. On this machine
alone the Host header must be this machine's too, so that no other site's name can be made to lead
here.
"""

import hmac
import json
import secrets
import socket
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from equigrid.analysis.report.live import live_page
from equigrid.grid.errors import UnavailableError, UserError
from equigrid.grid.reporting.live import Live
from equigrid.grid.text import safe

LOCAL = "127.0.0.1"
NAMES = ("localhost", LOCAL, "[::1]", "::1")  # by which a browser reaches it through a tunnel
HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
}
DENIED = "Open the whole address that equigrid watch printed: it has the token.\n"


class LiveServer(ThreadingHTTPServer):
    """The server; `address` is what to open. Raises OSError where the port cannot be had."""

    daemon_threads = True

    def __init__(self, live: Live, title: str, store: str, *, host: str, port: int) -> None:
        """port: 0 for any that is free."""
        self.live, self.title, self.store, self.host = live, title, store, host
        self.token = secrets.token_urlsafe(24)
        if ":" in host:
            self.address_family = socket.AF_INET6
        super().__init__((host, port), _Handler)

    @property
    def address(self) -> str:
        """With the token."""
        name = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{name}:{self.server_address[1]}/?token={self.token}"

    @property
    def cookie(self) -> str:
        """Its name: of the port too, since cookies are not."""
        return f"equigrid-{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection that broke is nobody's concern, and its text could hold the token."""


class _Handler(BaseHTTPRequestHandler):
    server: LiveServer
    timeout = 30
    server_version = "equigrid"
    sys_version = ""

    def log_message(self, *_: object) -> None:
        """Nothing: the first address of each reader has the token in it."""

    def do_GET(self) -> None:
        """Every address there is."""
        where = urlsplit(self.path)
        query = parse_qs(where.query)
        if not self._is_for_here():
            self._send(HTTPStatus.FORBIDDEN, "This server answers to localhost alone.\n")
        elif self._is_token(query.get("token", [""])[0]):
            self._let_in()
        elif not self._is_let_in():
            self._send(HTTPStatus.FORBIDDEN, DENIED)
        elif where.path == "/":
            html, policy = live_page(self.server.title, self.server.store)
            more = {"Content-Security-Policy": policy}
            self._send(HTTPStatus.OK, html, "text/html; charset=utf-8", more)
        elif where.path == "/state":
            self._send_json(self.server.live.state)
        elif where.path == "/answer":
            have = query.get("have", [""])[0]
            self._send_json(lambda: self.server.live.answer(have))
        else:
            self._send(HTTPStatus.NOT_FOUND, "There is nothing here.\n")

    # Who may --------------------------------------------------------------------------------------

    def _is_for_here(self) -> bool:
        if self.server.host not in NAMES:  # it was opened to a network, under names of its own
            return True
        name = self.headers.get("Host", "")
        name = name.rsplit(":", 1)[0] if not name.endswith("]") else name
        return name.lower() in NAMES

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self.server.token.encode())

    def _is_let_in(self) -> bool:
        kind, _, bearer = self.headers.get("Authorization", "").partition(" ")
        if kind == "Bearer" and self._is_token(bearer):
            return True
        try:
            cookies = SimpleCookie(self.headers.get("Cookie", ""))
        except CookieError:
            return False
        own = cookies.get(self.server.cookie)
        return own is not None and self._is_token(own.value)

    def _let_in(self) -> None:
        kept = f"{self.server.cookie}={self.server.token}; HttpOnly; SameSite=Strict; Path=/"
        self._send(HTTPStatus.SEE_OTHER, "", more={"Set-Cookie": kept, "Location": "/"})

    # Answers --------------------------------------------------------------------------------------

    def _send_json(self, found: Any) -> None:
        try:
            content = found()
        except (UnavailableError, UserError) as error:
            status, content = HTTPStatus.SERVICE_UNAVAILABLE, {"error": safe(str(error))}
        else:
            status = HTTPStatus.OK if content is not None else HTTPStatus.NO_CONTENT
        text = "" if content is None else json.dumps(content, allow_nan=False)
        self._send(status, text, "application/json")

    def _send(
        self,
        status: HTTPStatus,
        text: str,
        kind: str = "text/plain; charset=utf-8",
        more: dict[str, str] | None = None,
    ) -> None:
        data = text.encode()
        self.send_response(status)
        headers = {**HEADERS, "Content-Type": kind, "Content-Length": str(len(data))}
        for name, value in {**headers, **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
