"""The train_dir of an import: a checkpoint of step 0 and model.json, written atomically.

path = check_train_dir('/tmp/caffe', overwrite=False)
line = write(path, model, spec, overwrite=False)
"""

import os
import re

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
    """Returns the folder if it can be written; called before any work.

    Args:
        path: Value of `--train_dir`.
        overwrite: Whether an earlier import may be replaced.

    Raises:
        InputError: No path, too long a name, the folder holds something else, or another process is writing it.
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
    """Raises InputError if something exists at a path that may not be replaced; see `check_train_dir`."""
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
    """Writes the folder to a temporary path, reads the checkpoint back, and renames the folder.

    Returns:
        A line that describes the comparison.

    Raises:
        InputError: It cannot be written; what existed before is unharmed.
    """
    tensors = {name: variable.numpy() for name, variable in slim_variables(model).items()}
    tensors[checkpoints.STEP_KEY] = np.asarray(_STEP, np.int64)
    with atomic.atomic_path(path, _FLAG) as part:
        os.mkdir(part)
        line = checkpoints.compare(checkpoints.save(part, _STEP, tensors, max_to_keep=0), tensors)
        spec.save(part)
        check_free(path, overwrite)  # others may have written there meanwhile
    return line
