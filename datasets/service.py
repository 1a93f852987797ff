"""TensorFlow's tf.data service: other machines prepare the batches.

check('grpc://dispatcher:5050')
batches = training_batches(dataset, preprocessing, 128, 0, 0, data_service='grpc://dispatcher:5050')
"""

import re
import socket

from configs.errors import InputError

_TIMEOUT_SECS = 10


def check(address: str) -> None:
    """Refuses an address where nothing listens; TensorFlow would try again for an hour.

    Raises:
        InputError: it is not grpc://host:port, or no dispatcher can be reached there.
    """
    match = re.fullmatch(r'grpc://(\[[^\]]+\]|[^:/]+):(\d{1,5})', address)
    if match is None:
        raise InputError(f'--data_service={address}: must be grpc://host:port, the address of the dispatcher')
    try:
        socket.create_connection((match[1].strip('[]'), int(match[2])), _TIMEOUT_SECS).close()
    except (OSError, OverflowError) as error:
        raise InputError(
            f'--data_service={address}: no dispatcher can be reached there ({error}); start it first, see README'
        ) from error
