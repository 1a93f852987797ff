"""TensorFlow's tf.data service: batches prepared on other machines.

check('grpc://dispatcher:5050')
batches = training_batches(dataset, preprocessing, 128, 0, 0, data_service='grpc://dispatcher:5050')
"""

import re
import socket
import time

import grpc  # type: ignore[import-untyped]
import tensorflow as tf

from support.errors import InputError

_TIMEOUT_SECS = 10
_WORKER_TIMEOUT_SECS = 2
_GET_WORKERS = '/tensorflow.data.DispatcherService/GetWorkers'


def check(address: str) -> None:
    """Raises InputError if a service cannot deliver batches: TensorFlow would wait for an hour or for ever.

    Raises:
        InputError: The address is not grpc://host:port, no dispatcher answers, or none of its workers can be reached
            from this machine. Waits for workers that are about to register.
    """
    match = re.fullmatch(r'grpc://(\[[^\]]+\]|[^:/]+):(\d{1,5})', address)
    if match is None:
        raise InputError(f'--data_service={address}: must be grpc://host:port, the address of the dispatcher')
    try:
        _connect(match[1], match[2], _TIMEOUT_SECS)
    except (OSError, ValueError, OverflowError) as error:
        raise InputError(
            f'--data_service={address}: no dispatcher can be reached there ({error}); start it first, see README'
        ) from error
    workers = _wait_for_workers(address)
    if not any(map(_can_be_reached, workers)):
        raise InputError(
            f'--data_service={address}: none of its workers can be reached from here: {", ".join(workers[:3])}'
            f'{" ..." if len(workers) > 3 else ""}; start them with a worker_address that this machine can connect to, '
            'see docs/data.md'
        )


def _connect(host: str, port: str, timeout: float) -> None:
    socket.create_connection((host.strip('[]'), int(port)), timeout).close()


def _can_be_reached(worker: str) -> bool:
    host, _, port = worker.rpartition(':')
    try:
        _connect(host, port, _WORKER_TIMEOUT_SECS)
    except (OSError, ValueError, OverflowError):
        return False
    return True


def _wait_for_workers(address: str) -> list[str]:
    """Waits for the first worker and returns the addresses of all.

    Raises:
        InputError: The listener is not a dispatcher, or no worker has registered within `_TIMEOUT_SECS`.
    """
    end = time.monotonic() + _TIMEOUT_SECS
    with grpc.insecure_channel(address.removeprefix('grpc://')) as channel:
        # TensorFlow has no Python client for it; the request is a message without fields.
        get_workers = channel.unary_unary(_GET_WORKERS)
        while True:
            try:
                workers = _addresses(get_workers(b'', timeout=_TIMEOUT_SECS))
            except grpc.RpcError as error:
                code = error.code().name if isinstance(error, grpc.Call) else error
                raise InputError(
                    f'--data_service={address}: the server there is not a dispatcher of a tf.data service ({code}); '
                    'give the address of the DispatchServer, not of a worker or another server'
                ) from error
            if workers:
                return workers
            if time.monotonic() > end:
                raise InputError(
                    f'--data_service={address}: the dispatcher has no workers; start at least one WorkerServer with '
                    f'dispatcher_address={address.removeprefix("grpc://")}, see docs/data.md'
                )
            time.sleep(0.1)


def _addresses(response: bytes) -> list[str]:
    """Returns the first field, the address, of each message in the first field of a GetWorkersResponse."""
    # On the wire a BytesList is the same: a field 1 with any number of strings or messages.
    workers = tf.train.BytesList.FromString(response).value
    return [tf.train.BytesList.FromString(worker).value[0].decode() for worker in workers]
