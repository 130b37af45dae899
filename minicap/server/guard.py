"""What every request passes first: checks of its origin, a time limit, security headers."""

import asyncio
import ipaddress
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SECONDS = 60.0  # for a whole request
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        "media-src 'self' blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Guard:
    """ASGI middleware that refuses requests which other web sites have caused.

    A web site can make its visitor's browser send requests to 127.0.0.1. Two checks stop that.
    - Host must be an IP address, localhost, or the name the server was started with. A site that
      points its own name at 127.0.0.1 (DNS rebinding) sends that name.
    - Origin, which browsers add to every POST, must be this server (cross-site request forgery).
    """

    def __init__(self, app: ASGIApp, names: Collection[str] = (), seconds: float = SECONDS) -> None:
        """Wrap an application.

        Args:
            app: the application.
            names: host names that are allowed besides localhost and IP addresses.
            seconds: time limit of a request.
        """
        self.app, self.names, self.seconds = app, {"localhost", *names}, seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refusal = self.refusal(Headers(scope=scope))
        if refusal:
            await error(403, refusal)(scope, receive, send_with_headers)
            return
        try:
            async with asyncio.timeout(self.seconds):
                await self.app(scope, receive, send_with_headers)
        except TimeoutError:
            if started:
                raise
            late = error(504, f"not finished within {self.seconds:g} seconds; try again")
            await late(scope, receive, send_with_headers)

    def refusal(self, headers: Headers) -> str:
        """Say why a request is refused; "" if it is not."""
        host = headers.get("host", "")
        if not self.is_ours(host):
            return f"the Host {host[:80]!r} is not this server's: open it by its IP address"
        origin = headers.get("origin")
        if origin is not None and origin != f"http://{host}":
            return f"requests from {origin[:80]!r} are refused: open this server's own page"
        other = headers.get("sec-fetch-site") in ("cross-site", "same-site")
        if other and headers.get("sec-fetch-mode") != "navigate":
            return "requests from other sites are refused: open this server's own page"
        return ""

    def is_ours(self, host: str) -> bool:
        """Return whether a Host header names this server."""
        name, _, port = host.rpartition(":") if not host.endswith("]") else (host, "", "")
        if not name:  # no port
            name, port = host, ""
        if port and not port.isdecimal():
            return False
        if name.lower() in self.names:
            return True
        try:
            ipaddress.ip_address(name.removeprefix("[").removesuffix("]"))
        except ValueError:
            return False
        return True


def error(status: int, message: str, **headers: str) -> JSONResponse:
    """Make the JSON response of an error."""
    return JSONResponse({"error": message}, status, headers)
