"""What `--data_service` may name: a dispatcher with a worker, and nothing else that listens."""

import contextlib
import functools
import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf

from datasets import service
from support.errors import InputError
from tests.runs import data_service
from tests.sources import web_server

SERVERS = tf.data.experimental.service
NO_DISPATCHER = 'the server there is not a dispatcher of a tf.data service ({}); give the address of the DispatchServer'


def start_worker(address: str, worker_address: str | None = None) -> Any:
    target = address.removeprefix('grpc://')
    config = SERVERS.WorkerConfig(dispatcher_address=target, worker_address=worker_address, heartbeat_interval_ms=100)
    return SERVERS.WorkerServer(config)


@contextlib.contextmanager
def worker(worker_address: str | None = None, is_named: bool = False) -> Iterator[str]:
    """Yields the address of a dispatcher with one worker, or that of the worker itself."""
    with data_service(workers=0) as address:
        server = start_worker(address, worker_address)
        yield f'grpc://{server._address}' if is_named else address
        server._stop()


@contextlib.contextmanager
def silence() -> Iterator[str]:
    with socket.create_server(('localhost', 0)) as server:
        yield f'grpc://localhost:{server.getsockname()[1]}'


@contextlib.contextmanager
def of_the_web() -> Iterator[str]:
    with web_server(Path(__file__).parent) as address:
        yield f'grpc://{address}'


def test_a_worker_that_comes_a_moment_later_is_waited_for() -> None:
    with data_service(workers=0) as address:
        late: list[object] = []
        timer = threading.Timer(0.3, lambda: late.append(start_worker(address)))
        timer.start()
        service.check(address)
        assert late, 'it has not waited'
        timer.join()


@pytest.mark.parametrize(
    ('listening', 'message'),
    [
        (
            functools.partial(worker, is_named=True),
            NO_DISPATCHER.format('UNIMPLEMENTED'),
        ),
        (of_the_web, NO_DISPATCHER.format('UNAVAILABLE')),
        (silence, NO_DISPATCHER.format('DEADLINE_EXCEEDED')),
        (
            functools.partial(data_service, 0),
            'the dispatcher has no workers; start at least one WorkerServer with dispatcher_address=',
        ),
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
    with (
        listening() as address,
        pytest.raises(InputError, match=f'^{re.escape(f"--data_service={address}: {message}")}'),
    ):
        service.check(address)
