"""One connection between two workers: lines of JSON over TCP."""

import contextlib
import json
import socket
import threading
from collections.abc import Mapping
from typing import Any

_MOST_BYTES = 2**24  # of a line: a config is some KB, and there are as many values in a line as workers


class Peer:
    """The other end of a connection. Sending is safe from several threads; one thread receives."""

    def __init__(self, connection: socket.socket):
        self._connection = connection
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._lines = connection.makefile('rb')
        self._sending = threading.Lock()

    @property
    def host(self) -> str:
        """The other's address, as seen from here."""
        return self._connection.getpeername()[0]

    @property
    def own_host(self) -> str:
        """The address of this end, as the other sees it."""
        return self._connection.getsockname()[0]

    def set_timeout(self, seconds: float | None) -> None:
        """Lets what is not sent or received in time be as if the other had gone."""
        self._connection.settimeout(seconds)

    def send(self, message: Mapping[str, Any]) -> None:
        """Sends a message; raises OSError where the other has gone."""
        line = json.dumps(message).encode() + b'\n'
        with self._sending:
            self._connection.sendall(line)

    def receive(self) -> dict[str, Any] | None:
        """Returns the next message; None where the other has gone, or what came is no message."""
        try:
            line = self._lines.readline(_MOST_BYTES)
            message = json.loads(line) if line.endswith(b'\n') else None
        except (OSError, ValueError, RecursionError):
            return None
        return message if isinstance(message, dict) else None

    def close(self) -> None:
        """Ends the connection; a thread that waits in `receive` gets None."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()
