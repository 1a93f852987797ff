"""What kind of checkpoint a path means, by its content: a name says nothing.

recognise('/tmp/lenet.keras')                  # Format.KERAS
find_checkpoint('/tmp/tfmodel')                # '/tmp/tfmodel/model.ckpt-1000'
"""

import enum
import re

import tensorflow as tf

from configs.errors import InputError, first_line
from engine.checkpoints import files
from engine.checkpoints.keras_files import HDF5_MAGIC, ZIP_MAGIC

_TABLE_MAGIC = (0xDB4775248B80FB57).to_bytes(8, 'little')  # the end of a LevelDB table


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
            file.seek(max(file.size() - len(_TABLE_MAGIC), 0))
            end = file.read()
    except (tf.errors.OpError, OSError) as error:
        raise InputError(f'{path}: {first_line(error)}') from error
    if start.startswith(ZIP_MAGIC):
        return Format.KERAS
    if start == HDF5_MAGIC:
        return Format.WEIGHTS_H5
    return Format.TENSORFLOW_V1 if end == _TABLE_MAGIC else None


def find_checkpoint(path: str) -> str:
    """Returns the checkpoint that `--checkpoint_path` means: a `.keras` or `.weights.h5` file, or TensorFlow's.

    For those it is the prefix: the one that was named, of the file that was named, or of the latest of a folder.

    Raises:
        InputError: there is none.
    """
    of_several = re.search(r'\.(index|meta|data-\d+-of-\d+)$', path)
    if of_several or tf.io.gfile.isdir(path) or not tf.io.gfile.exists(path):
        return files.find_checkpoint(path)
    if recognise(path) is None:
        raise InputError(
            f'--checkpoint_path={path}: neither a TensorFlow checkpoint nor a .keras or .weights.h5 file, or cut short'
        )
    return path
