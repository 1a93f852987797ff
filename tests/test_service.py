"""What `--data_service` may name: a dispatcher with a worker, and nothing else that listens."""

import contextlib
import functools
import http.server
import re
import socket
import threading
from collections.abc import Callable, Iterator

import pytest
import tensorflow as tf

from datasets import service
from support.errors import InputError

SERVERS = tf.data.experimental.service
NO_DISPATCHER = 'the server there is not a dispatcher of a tf.data service ({}); give the address of the DispatchServer'


@contextlib.contextmanager
def dispatcher() -> Iterator[str]:
    server = SERVERS.DispatchServer(SERVERS.DispatcherConfig(port=0))
    yield server.target.removeprefix('grpc://')
    server._stop()


@contextlib.contextmanager
def worker(worker_address: str | None = None, is_named: bool = False) -> Iterator[str]:
    """Yields the address of a dispatcher with one worker, or that of the worker."""
    with dispatcher() as address:
        config = SERVERS.WorkerConfig(
            dispatcher_address=address, worker_address=worker_address, heartbeat_interval_ms=100
        )
        server = SERVERS.WorkerServer(config)
        yield server._address if is_named else address
        server._stop()


@contextlib.contextmanager
def silence() -> Iterator[str]:
    with socket.create_server(('localhost', 0)) as server:
        yield f'localhost:{server.getsockname()[1]}'


@contextlib.contextmanager
def web_server() -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(('localhost', 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f'localhost:{server.server_port}'
        server.shutdown()
        thread.join()


def test_a_dispatcher_with_a_worker_is_accepted() -> None:  # the other cases show that it is looked at
    with worker() as address:
        service.check(f'grpc://{address}')


def test_a_worker_that_comes_a_moment_later_is_waited_for() -> None:
    with dispatcher() as address:
        late: list[object] = []

        def start() -> None:
            config = SERVERS.WorkerConfig(dispatcher_address=address, heartbeat_interval_ms=100)
            late.append(SERVERS.WorkerServer(config))

        timer = threading.Timer(0.3, start)
        timer.start()
        service.check(f'grpc://{address}')
        assert late, 'it has not waited'
        timer.join()


@pytest.mark.parametrize(
    ('listening', 'message'),
    [
        (
            functools.partial(worker, is_named=True),
            NO_DISPATCHER.format('UNIMPLEMENTED'),
        ),
        (web_server, NO_DISPATCHER.format('UNAVAILABLE')),
        (silence, NO_DISPATCHER.format('DEADLINE_EXCEEDED')),
        (dispatcher, 'the dispatcher has no workers; start at least one WorkerServer with dispatcher_address='),
        (
            functools.partial(worker, 'localhost:1'),
            'none of its workers can be reached from here: localhost:1; start them with a worker_add',
        ),
    ],
)
def test_what_gives_no_batches_is_refused(
    listening: Callable[[], contextlib.AbstractContextManager[str]], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, '_TIMEOUT_SECS', 0.5)
    with listening() as address:
        expected = re.escape(f'--data_service=grpc://{address}: {message}')
        with pytest.raises(InputError, match=f'^{expected}'):
            service.check(f'grpc://{address}')
