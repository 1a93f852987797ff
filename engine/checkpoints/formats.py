"""The format of a checkpoint, detected by its content, not its name.

recognise('/tmp/lenet.keras')                  # Format.KERAS
find_checkpoint('/tmp/tfmodel')                # '/tmp/tfmodel/model.ckpt-1000'
"""

import enum
import os
import re

import tensorflow as tf

from configs.early import PART_OF_CHECKPOINT
from engine.checkpoints import files, other_formats
from engine.checkpoints.keras_files import HDF5_MAGIC, ZIP_MAGIC
from support.errors import InputError, first_line


class Format(enum.StrEnum):
    """The formats that are read."""

    TENSORFLOW = 'TensorFlow checkpoint'
    TENSORFLOW_V1 = 'TensorFlow checkpoint of one file, as before 2017'
    KERAS = '.keras'
    WEIGHTS_H5 = '.weights.h5'


def recognise(path: str) -> Format | None:
    """Returns the format of a checkpoint, given by its prefix or file, or None if it is none.

    Raises:
        InputError: it cannot be read at all.
    """
    if tf.io.gfile.exists(f'{path}.index'):
        return Format.TENSORFLOW
    if not tf.io.gfile.exists(path) or tf.io.gfile.isdir(path):
        return None
    try:
        with tf.io.gfile.GFile(path, 'rb') as file:
            start = file.read(len(HDF5_MAGIC))
        is_of_one_file = files.is_of_one_file(path)
    except (tf.errors.OpError, OSError) as error:
        raise InputError(f'{path}: {first_line(error)}') from error
    if start.startswith(ZIP_MAGIC):
        return Format.KERAS
    if start == HDF5_MAGIC:
        return Format.WEIGHTS_H5
    return Format.TENSORFLOW_V1 if is_of_one_file else None


def find_checkpoint(path: str, flag: str = 'checkpoint_path') -> str:
    """Returns the checkpoint that a path means: a `.keras` or `.weights.h5` file, or TensorFlow's.

    For those it is the prefix: the one that was named, of the file that was named, or of the latest of a folder.

    Args:
        path: As it was given.
        flag: What messages call it.

    Raises:
        InputError: there is none; a file of another kind is named as what it is.
    """
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise InputError(f'--{flag}={path}: a pipe or a device, not a checkpoint')
    try:
        if re.search(PART_OF_CHECKPOINT, path) or tf.io.gfile.isdir(path) or not tf.io.gfile.exists(path):
            return files.find_checkpoint(path, flag)
        found = recognise(path)
        other = other_formats.describe(path) if found is None else None
    except (tf.errors.OpError, OSError) as error:  # of a scheme that TensorFlow does not know, for instance
        raise InputError(f'--{flag}={path}: cannot be read: {first_line(error)}') from error
    if found in (Format.KERAS, Format.WEIGHTS_H5):
        other = other_formats.inside_archive(path)
    if other is not None:
        raise InputError(f'--{flag}={path}: {other}')
    return path
