"""The train_dir that an import makes: a checkpoint of step 0 and model.json, whole or not at all.

path = check_train_dir('/tmp/caffe', overwrite=False)
line = write(path, model, spec, overwrite=False)
"""

import os
import re
from collections.abc import Mapping

import keras
import numpy as np

from engine import checkpoints
from engine.classifiers.model_spec import ModelSpec
from nets.variables import slim_variables
from support import atomic
from support.errors import InputError

_FLAG = 'train_dir'
_STEP = 0
_OURS = re.compile(rf'checkpoint|model\.json|model\.ckpt-{_STEP}\.(index|data-\d+-of-\d+)')


def check_train_dir(path: str | None, overwrite: bool) -> str:
    """Returns the folder if it can be made, before there is any work.

    Args:
        path: As it was given.
        overwrite: Whether an earlier import may be replaced.

    Raises:
        InputError: no path, too long a name, something else is there, or another process is writing it.
    """
    if not path or '://' in path:
        raise InputError(f'--train_dir={path or ""}: name a local folder')
    if re.search(r'[\[\\]', path):
        raise InputError(f'--train_dir={path}: TensorFlow cannot read checkpoints from paths with [ or \\')
    path = path.rstrip('/') or '/'
    atomic.check_name(path, _FLAG)
    atomic.recover(path, _FLAG)
    check_free(path, overwrite)
    return path


def check_free(path: str, overwrite: bool) -> None:
    """Refuses a path where something is that may not be replaced; see `check_train_dir`."""
    if not os.path.lexists(path):
        return
    if os.path.islink(path) or not os.path.isdir(path):
        raise InputError(f'--train_dir={path} exists and is not a folder; choose another path')
    names = sorted(os.listdir(path))
    others = [name for name in names if not _OURS.fullmatch(name)]
    if others:
        kind = 'a run' if any(name.startswith('model.ckpt') for name in names) else others[0]
        raise InputError(f'--train_dir={path} holds {kind}, which is not replaced; choose another folder')
    if names and not overwrite:
        raise InputError(f'--train_dir={path} holds an earlier import; choose another folder, or add --overwrite')


def write(path: str, model: keras.Model, spec: ModelSpec, overwrite: bool) -> str:
    """Writes the folder beside its place, and reads the checkpoint back before it gets its name.

    Returns:
        A line that says what was compared.

    Raises:
        InputError: it cannot be written; what was there is unharmed.
    """
    tensors = {name: variable.numpy() for name, variable in slim_variables(model).items()}
    tensors[checkpoints.STEP_KEY] = np.asarray(_STEP, np.int64)
    with atomic.atomic_path(path, _FLAG) as part:
        os.mkdir(part)
        line = _compare(checkpoints.save(part, _STEP, tensors, max_to_keep=0), tensors)
        spec.save(part)
        check_free(path, overwrite)  # which others may have written to since
    return line


def _compare(prefix: str, tensors: Mapping[str, np.ndarray]) -> str:
    """Reads a checkpoint back; returns a line that says that it is equal to the bit."""
    checkpoint = checkpoints.Checkpoint(prefix)
    for name, value in tensors.items():
        if checkpoint.read(name).tobytes() != value.tobytes():
            raise InputError(f'{name} does not read back as it was written; nothing was kept')
    numbers = sum(value.size for value in tensors.values())
    return f'compared {len(tensors)} tensors of the checkpoint, {numbers} numbers: equal'
