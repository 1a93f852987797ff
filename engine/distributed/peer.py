"""One connection between two workers: lines of JSON over TCP."""

import contextlib
import json
import select
import socket
import threading
from collections.abc import Mapping
from typing import Any

_MOST_BYTES = 2**24  # of a line: a config is some KB, and there are as many values in a line as workers


def parse(line: bytes) -> dict[str, Any] | None:
    """Returns the message that a line holds, or None where it holds none."""
    try:
        message = json.loads(line) if line.endswith(b'\n') else None
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, dict) else None


def shown(text: object, most: int = 1000, keep: str = '') -> str:
    """Returns another process's text as it may be printed: shortened, control characters escaped.

    Args:
        most: How many characters are shown.
        keep: Of those that are not printable, the ones that stay.
    """
    said = str(text)
    said = said if len(said) <= most else f'{said[:most]}...'
    return ''.join(
        letter if letter.isprintable() or letter in keep else letter.encode('unicode_escape').decode()
        for letter in said
    )


class Peer:
    """The other end of a connection. Sending is safe from several threads; one thread receives."""

    def __init__(self, connection: socket.socket):
        self._connection = connection
        connection.settimeout(None)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._lines = connection.makefile('rb')
        self._sending = threading.Lock()

    @property
    def own_host(self) -> str:
        """The address of this end, as the other sees it."""
        return self._connection.getsockname()[0]

    def has_gone(self) -> bool:
        """Returns whether the other has ended the connection; only while nothing is received."""
        try:
            return not self._connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            return True

    def send(self, message: Mapping[str, Any], patience: float | None = None) -> None:
        """Sends a message.

        Args:
            message: Of JSON's types.
            patience: For how many seconds to wait where the other does not read; None: until `close`.

        Raises:
            OSError: the other has gone, or does not read.
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
        """Returns the next message; None where the other has gone, or what came is no message."""
        try:
            return parse(self._lines.readline(_MOST_BYTES))
        except (OSError, ValueError):  # the latter where it was closed
            return None

    def receive_within(self, seconds: float) -> dict[str, Any] | None:
        """Returns the next message, and ends the connection where the whole of it has not come in time."""
        end = threading.Timer(seconds, self.close)  # a timeout of the socket's would be one of each byte
        end.daemon = True
        end.start()
        try:
            return self.receive()
        finally:
            end.cancel()

    def close(self) -> None:
        """Ends the connection; a thread that waits in `receive` gets None, one that waits in `send` an OSError."""
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)
        with self._sending:
            self._lines.close()  # the socket itself is open until then
            self._connection.close()
