"""Runs a TFLite file once in a process of its own, which it may crash: LiteRT does not validate files fully.

    refuse_deadly('/tmp/net.tflite')            # InputError: ... LiteRT crashed with SIGSEGV ...

As a script, this is that process; it imports only LiteRT and NumPy, which takes a third of a second.
"""

import json
import os
import subprocess
import sys

_TIMEOUT_SECS = 300
_SIDE = 224  # side of the images if the file takes any size
_BATCHES = (1, 2)  # if the file takes any batch; the second makes LiteRT plan its memory again, as in real use


def refuse_deadly(path: str) -> None:
    """Runs a file on zeros in another process; raises InputError if it crashes LiteRT.

    Raises:
        InputError: the process was killed by a signal, or did not end in time.
    """
    import signal

    from support.errors import InputError

    command = [sys.executable, '-I', os.path.abspath(__file__), path, json.dumps(sys.path)]
    try:
        finished = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_SECS, check=False)
    except subprocess.TimeoutExpired as error:
        raise InputError(f'{path}: LiteRT did not finish running it within {_TIMEOUT_SECS} seconds') from error
    if finished.returncode < 0:
        name = signal.Signals(-finished.returncode).name
        problem = f'LiteRT crashed with {name} while running it'
        raise InputError(f'{path}: {problem}: damaged, or not a net that LiteRT can run')


def run_once(path: str) -> None:
    """Runs a file on zeros, with its batch size or, if it takes any, with one and with two images."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=path, num_threads=1)
    (images,) = interpreter.get_input_details()
    signature = images['shape_signature'] if len(images['shape_signature']) else images['shape']
    sizes = [int(size) for size in signature]
    for batch in _BATCHES if sizes[0] < 0 else (sizes[0],):
        shape = [batch, *(size if size >= 0 else _SIDE for size in sizes[1:])]
        interpreter.resize_tensor_input(images['index'], shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(images['index'], np.zeros(shape, images['dtype']))
        interpreter.invoke()
        for result in interpreter.get_output_details():
            interpreter.get_tensor(result['index'])


if __name__ == '__main__':
    sys.path[:] = json.loads(sys.argv[2])
    try:
        run_once(sys.argv[1])
    except Exception:  # the parent process meets the same error and reports it
        sys.exit(1)
