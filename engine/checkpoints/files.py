"""The files of checkpoints: which a folder holds, which is the latest, what a path means.

find_checkpoint('/tmp/tfmodel')                # '/tmp/tfmodel/model.ckpt-1000'
"""

import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence

import tensorflow as tf
from absl import logging

from configs.errors import InputError

PREFIX = 'model.ckpt'
SUFFIXES = ('.data-00000-of-00001', '.index')  # in this order: an index says that its data is complete
_POLL_SECS = 1.0


def checkpoint_step(prefix: str) -> int:
    """Returns the step in a checkpoint's name, or -1 if there is none."""
    match = re.search(r'-(\d+)$', prefix)
    return int(match[1]) if match else -1


def list_checkpoints(train_dir: str) -> list[str]:
    """Returns the prefixes of the checkpoints in a folder, the oldest step first."""
    if not tf.io.gfile.isdir(train_dir):
        return []
    names = tf.io.gfile.listdir(train_dir)
    found = [name.removesuffix('.index') for name in names if re.fullmatch(rf'{PREFIX}-\d+\.index', name)]
    return [os.path.join(train_dir, name) for name in sorted(found, key=checkpoint_step)]


def latest_checkpoint(train_dir: str) -> str | None:
    """Returns the newest checkpoint of a folder: the one that its `checkpoint` file names, else that of the last step.

    `tf.train.latest_checkpoint` takes the folder for a glob, and knows nothing where its `checkpoint` file is missing,
    damaged, or names a place that the files were moved away from.
    """
    try:
        state = tf.train.get_checkpoint_state(train_dir)
    except (tf.errors.OpError, ValueError):
        state = None
    if state:
        # First in this folder: slim writes absolute paths, and a copy of a run must not lead back to the original.
        here = os.path.join(train_dir, os.path.basename(state.model_checkpoint_path))
        for prefix in (here, state.model_checkpoint_path):
            if tf.io.gfile.exists(f'{prefix}.index'):
                return prefix
    return next(reversed(list_checkpoints(train_dir)), None)


def find_checkpoint(path: str) -> str:
    """Returns the checkpoint that `--checkpoint_path` means: a prefix, one of its files, or the latest of a folder.

    Raises:
        InputError: there is none.
    """
    if tf.io.gfile.isdir(path):
        latest = latest_checkpoint(path)
        if latest is None:
            raise InputError(f'--checkpoint_path={path}: no checkpoint in this folder')
        return latest
    prefix = re.sub(r'\.(index|meta|data-\d+-of-\d+)$', '', path)
    if tf.io.gfile.exists(f'{prefix}.index'):
        return prefix
    folder = os.path.dirname(prefix) or '.'
    if not tf.io.gfile.isdir(folder):
        raise InputError(f'--checkpoint_path={path}: no such file, and no folder {folder}')
    present = [os.path.basename(other) for other in list_checkpoints(folder)]
    raise InputError(f'--checkpoint_path={path}: no such checkpoint; {folder} holds {", ".join(present) or "none"}')


def new_checkpoints(train_dir: str, interval_secs: float, timeout_secs: float | None) -> Iterator[str]:
    """Yields the latest checkpoint of a folder each time there is a new one, at least `interval_secs` apart.

    Ends when none has come for `timeout_secs`; never, if that is None. The folder need not be there yet.
    """
    seen, since = None, time.monotonic()
    while True:
        latest = latest_checkpoint(train_dir)
        if latest is None or latest == seen:
            if timeout_secs is not None and time.monotonic() - since >= timeout_secs:
                return
            logging.log_every_n_seconds(logging.INFO, 'waiting for a new checkpoint in %s', 600, train_dir)
            time.sleep(_POLL_SECS if timeout_secs is None else min(_POLL_SECS, timeout_secs))
            continue
        seen, since = latest, time.monotonic()
        yield latest
        time.sleep(max(since + interval_secs - time.monotonic(), 0))
        since = time.monotonic()


def write_state(train_dir: str, prefixes: Sequence[str]) -> None:
    """Writes TensorFlow's `checkpoint` file, with names relative to the folder, so that it can be moved."""
    paths = [os.path.basename(prefix) for prefix in prefixes]
    lines = [f'model_checkpoint_path: "{paths[-1]}"', *(f'all_model_checkpoint_paths: "{path}"' for path in paths)]
    write_text(os.path.join(train_dir, 'checkpoint'), '\n'.join(lines) + '\n')


def files_starting(folder: str, start: str) -> list[str]:
    """Returns the files of a folder whose names begin so."""
    # Not by a glob: the folder's name may have characters that it would interpret.
    names = tf.io.gfile.listdir(folder) if tf.io.gfile.isdir(folder) else []
    return [os.path.join(folder, name) for name in names if name.startswith(start)]


def delete(paths: Iterable[str]) -> None:
    """Deletes those that are there."""
    for path in paths:
        if tf.io.gfile.exists(path):
            tf.io.gfile.remove(path)


def write_text(path: str, text: str) -> None:
    """Writes a text file whole or not at all.

    Raises:
        OSError or tf.errors.OpError: it cannot be written; a file that was there is unharmed.
    """
    if '://' not in path and os.path.exists(path) and not os.path.isfile(path):
        with open(path, 'w') as file:  # a device or a pipe, which a file must not replace; a folder refuses
            file.write(text)
        return
    path = path if '://' in path else os.path.realpath(path)  # through a link, not over it
    part = os.path.join(os.path.dirname(path), f'.part-{os.path.basename(path)}')
    try:
        with tf.io.gfile.GFile(part, 'w') as file:
            file.write(text)
        tf.io.gfile.rename(part, path, overwrite=True)
    except (tf.errors.OpError, OSError):
        delete([part])
        raise
