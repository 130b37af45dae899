"""Run the application on a port, with uvicorn."""

import ipaddress
import os
import socket
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from minicap.server.app import Lab, application
from minicap.utils.errors import UserError

HEADER_SECONDS = 10.0  # for the request line and the headers
CONNECTIONS = 512


class Impatient(H11Protocol):
    """HTTP/1.1 that closes a connection whose request does not begin in time.

    uvicorn itself limits the time between two requests only, not that before the first.
    """

    @property
    def idle(self) -> bool:
        """Whether no request is being answered, or only part of its headers has arrived."""
        return self.cycle is None or self.cycle.response_complete

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.deadline = self.loop.call_later(HEADER_SECONDS, self.close_if_idle)

    def data_received(self, data: bytes) -> None:
        if self.idle and self.deadline.cancelled():
            self.deadline = self.loop.call_later(HEADER_SECONDS, self.close_if_idle)
        super().data_received(data)
        if not self.idle:
            self.deadline.cancel()

    def close_if_idle(self) -> None:
        """Close the connection unless a request is being answered."""
        if self.idle:
            self.transport.close()


def listen(host: str, port: int) -> socket.socket:
    """Open the port.

    Raises:
        UserError: it is taken, or the host is not this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        number = error.errno or 0
        # create_server adds the address to strerror. Unknown hosts have negative numbers.
        reason = os.strerror(number) if number > 0 else error.strerror or error
        where = f"{host}, port {port}"
        raise UserError(f"{where}: {reason}; choose another --host or --port") from error


def is_local(host: str) -> bool:
    """Return whether only this machine can reach a host."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def run(lab: Lab, opened: socket.socket, host: str) -> None:
    """Serve until Ctrl-C or SIGTERM, then finish the requests that have begun.

    Args:
        lab: handles the requests.
        opened: from `listen`.
        host: a name by which the server may be called.
    """
    config = uvicorn.Config(
        application(lab, [host.lower()]),
        http=Impatient,
        ws="none",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_keep_alive=5,
        timeout_graceful_shutdown=10,
        limit_concurrency=CONNECTIONS,
    )
    uvicorn.Server(config).run(sockets=[opened])
