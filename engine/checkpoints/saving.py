"""Writing checkpoints, whole or not at all."""

import os
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from configs.errors import InputError, first_line
from engine.checkpoints.files import (
    PREFIX,
    SUFFIXES,
    delete,
    files_starting,
    latest_checkpoint,
    list_checkpoints,
    write_state,
)


def save(
    train_dir: str, step: int, variables: Mapping[str, tf.Variable | tf.Tensor | np.generic], max_to_keep: int
) -> str:
    """Writes `model.ckpt-<step>` and makes it the latest; returns its prefix.

    The files get their names only when they are complete, the index last, so that whatever has an index is whole.

    Raises:
        InputError: the folder cannot be written to, or the disk is full; checkpoints that were there are unharmed.
    """
    prefix = os.path.join(train_dir, f'{PREFIX}-{step}')
    part = os.path.join(train_dir, f'.part-{PREFIX}-{step}')
    before = [other for other in list_checkpoints(train_dir) if other != prefix]
    surplus = before[: max(len(before) + 1 - max_to_keep, 0)] if max_to_keep else []
    names = sorted(variables)
    tensors = [tf.convert_to_tensor(variables[name]) for name in names]
    try:
        tf.raw_ops.SaveV2(prefix=part, tensor_names=names, shape_and_slices=[''] * len(names), tensors=tensors)
        for suffix in SUFFIXES:
            tf.io.gfile.rename(part + suffix, prefix + suffix, overwrite=True)
        write_state(train_dir, [*before[len(surplus) :], prefix])
        for old in surplus:
            delete(old + suffix for suffix in reversed(SUFFIXES))
    except (tf.errors.OpError, OSError) as error:
        delete(files_starting(train_dir, f'{os.path.basename(part)}.'))
        if not tf.io.gfile.exists(f'{prefix}.index'):
            delete([prefix + SUFFIXES[0]])
        kept = latest_checkpoint(train_dir)
        raise InputError(
            f'cannot save {prefix}: {first_line(error)}; the last good checkpoint is {kept or "none"}. Make room, or '
            'put it right, and start again with the same --train_dir'
        ) from error
    return prefix
