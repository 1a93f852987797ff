"""`python -m engine.checkpoints PATH`: prints what is in a checkpoint of any format that is read here."""

import argparse
import json
import os
import sys
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from configs import cli
from engine.checkpoints.files import find_checkpoint, recognise
from engine.checkpoints.names import is_training_state
from engine.checkpoints.reading import Checkpoint
from support.errors import InputError, first_line
from support.tables import format_table

_HEADER = ('variable', 'shape', 'dtype', 'mean', 'std', 'min', 'max', 'not finite')
_BESIDE = ('model.json', 'config.cfg')


def describe(path: str) -> Iterator[str]:
    """Yields lines that describe a checkpoint of any format; for a folder, its latest checkpoint.

    Mean and standard deviation are over the finite values, in float64.

    Raises:
        InputError: there is no checkpoint.
        DamagedCheckpointError: the checkpoint, or one of its variables, cannot be read.
    """
    prefix = find_checkpoint(path)
    checkpoint = Checkpoint(prefix)
    names = sorted(checkpoint.shapes, key=lambda name: (is_training_state(name), name))
    step = checkpoint.step
    yield f'{prefix}: {recognise(prefix)}, step {step if step >= 0 else "unknown"}'
    rows: list[tuple[str, ...]] = [_HEADER]
    numbers = 0
    for name in names:
        value = checkpoint.read(name)
        rows.append((name, 'x'.join(map(str, value.shape)) or 'scalar', value.dtype.name, *_statistics(value)))
        numbers += 0 if is_training_state(name) else value.size
    yield format_table(rows, numbers=True)
    weights = [name for name in names if not is_training_state(name)]
    yield f'{len(weights)} weights of {numbers} numbers, training state: {len(names) - len(weights)} tensors'
    yield from _config(checkpoint)


def _statistics(value: np.ndarray) -> tuple[str, ...]:
    """Returns mean, standard deviation, minimum, maximum and the number of non-finite values."""
    if value.dtype.kind not in 'fiub' and value.dtype != tf.bfloat16.as_numpy_dtype:
        return ('', '', '', '', '')
    values = value.astype(np.float64).ravel() if value.dtype.kind != 'i' or value.ndim else value.ravel()
    finite = values[np.isfinite(values)]
    bad = str(values.size - finite.size or '')
    if not finite.size:
        return ('', '', '', '', bad)
    if not value.ndim:
        return (f'{finite[0]:.10g}', '', '', '', bad)
    return (*(f'{number:.5g}' for number in (finite.mean(), finite.std(), finite.min(), finite.max())), bad)


def _config(checkpoint: Checkpoint) -> Iterator[str]:
    """Yields the run's metadata: from the file itself, else from the files beside it."""
    known = {key: value for key, value in checkpoint.metadata.items() if key != 'crc32'}
    if known:
        yield f'in the file: {json.dumps(known)}'
        return
    for name in _BESIDE:
        path = os.path.join(os.path.dirname(checkpoint.prefix), name)
        if not tf.io.gfile.exists(path):
            yield f'{path}: none'
            continue
        try:
            with tf.io.gfile.GFile(path, 'rb') as file:
                text = file.read().decode(errors='backslashreplace')
        except (tf.errors.OpError, OSError) as error:
            raise InputError(f'{path}: {first_line(error)}') from error
        yield f'{path}:'
        yield from (f'  {line}' for line in text.splitlines())


def main(arguments: list[str] | None = None) -> int:
    """Prints the description of a checkpoint.

    Returns:
        The exit status: 0, or 1 if the path is not a readable checkpoint.
    """
    parser = argparse.ArgumentParser(
        prog='python -m engine.checkpoints',
        description=__doc__,
    )
    parser.add_argument('path', help='prefix of a checkpoint, a train_dir, a .keras or a .weights.h5 file')
    path = parser.parse_args(arguments).path

    def print_description() -> int:
        for line in describe(path):
            print(line)
        return 0

    return cli.exit_status(print_description)


if __name__ == '__main__':
    sys.exit(main())
