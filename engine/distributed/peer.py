"""A connection between two workers: JSON lines over TCP."""

import contextlib
import json
import select
import socket
import threading
from collections.abc import Mapping
from typing import Any

_MOST_BYTES = 2**24  # of a line: a config takes a few KB, and a line has one value per worker


def parse(line: bytes) -> dict[str, Any] | None:
    """Returns the message in a line, or None if the line is not a valid message."""
    try:
        message = json.loads(line) if line.endswith(b'\n') else None
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None


def shown(text: object, most: int = 1000, keep: str = '') -> str:
    """Returns another process's text in a form safe to print: shortened, control characters escaped.

    Args:
        most: Number of characters to keep.
        keep: Non-printable characters that are not escaped.
    """
    said = str(text)
    said = said if len(said) <= most else f'{said[:most]}...'
    return ''.join(
        letter if letter.isprintable() or letter in keep else letter.encode('unicode_escape').decode()
        for letter in said
    )


class Peer:
    """The other end of a connection. Several threads may send; only one may receive."""

    def __init__(self, connection: socket.socket):
        self._connection = connection
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._lines = connection.makefile('rb')
        self._sending = threading.Lock()

    @property
    def own_host(self) -> str:
        """The address of this end, as the other end sees it."""
        return self._connection.getsockname()[0]

    def has_gone(self) -> bool:
        """Returns whether the other end has closed the connection; call only while no thread receives."""
        try:
            return not self._connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def send(self, message: Mapping[str, Any], patience: float | None = None) -> None:
        """Sends a message.

        Args:
            message: Consists of JSON types.
            patience: Seconds to wait if the other end does not read; None: until `close`.

        Raises:
            OSError: the other end has closed the connection or does not read.
        """
        line = json.dumps(message).encode() + b'\n'
        if not self._sending.acquire(timeout=-1 if patience is None else patience):
            raise TimeoutError
        try:
            if patience is not None and not self._has_room(patience):
                raise TimeoutError
            self._connection.sendall(line)
        finally:
            self._sending.release()

    def _has_room(self, patience: float) -> bool:
        if self._connection.fileno() < 0:
            raise ConnectionError
        room = select.poll()
        room.register(self._connection, select.POLLOUT)
        return bool(room.poll(patience * 1000))

    def receive(self) -> dict[str, Any] | None:
        """Returns the next message; None if the connection has ended or the message is invalid."""
        try:
            return parse(self._lines.readline(_MOST_BYTES))
        except (OSError, ValueError):  # ValueError: it was closed
            return None

    def receive_within(self, seconds: float) -> dict[str, Any] | None:
        """Returns the next message; closes the connection and returns None if it is not complete in time."""
        end = threading.Timer(seconds, self.close)  # a socket timeout would apply to each read
        end.daemon = True
        end.start()
        try:
            return self.receive()
        finally:
            end.cancel()

    def close(self) -> None:
        """Closes the connection; a thread waiting in `receive` gets None, one waiting in `send` an OSError."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        with self._sending:
            self._lines.close()  # the socket itself stays open until then
            self._connection.close()
