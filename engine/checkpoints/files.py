"""Checkpoint files: lists a folder's checkpoints, finds the latest, resolves paths, recognises formats.

find_checkpoint('/tmp/tfmodel')                # '/tmp/tfmodel/model.ckpt-1000'
recognise('/tmp/lenet.keras')                  # Format.KERAS: by content, not by name
"""

import dataclasses
import enum
import os
import re
import time
from collections.abc import Iterable, Iterator
from typing import Any

import tensorflow as tf
from absl import logging

from configs.early import ENDINGS_OF_ONE_FILE, PART_OF_CHECKPOINT, no_checkpoint_at, no_checkpoint_in, prefixes
from datasets.text_files import write_text
from engine.checkpoints import other_formats
from engine.checkpoints.keras_files import HDF5_MAGIC, ZIP_MAGIC
from support.errors import InputError, first_line

PREFIX, STATE = 'model.ckpt', 'checkpoint'
BEST = 'best'  # also in a train_dir: the folder of its best checkpoint
PART = f'.part-{PREFIX}-'
SUFFIXES = ('.data-00000-of-00001', '.index')  # in this order: an index means that its data is complete
_POLL_SECS = 1.0
_TABLE_MAGIC = (0xDB4775248B80FB57).to_bytes(8, 'little')  # the end of a LevelDB table


class Format(enum.StrEnum):
    """The checkpoint formats that this project reads."""

    TENSORFLOW = 'TensorFlow checkpoint'
    TENSORFLOW_V1 = 'TensorFlow checkpoint of one file, as before 2017'
    KERAS = '.keras'
    WEIGHTS_H5 = '.weights.h5'


def checkpoint_step(prefix: str) -> int:
    """Returns the step in a checkpoint's name, or -1 if the name has none."""
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
    """Returns a folder's latest checkpoint: the one named by its `checkpoint` file, else the one with the highest step.

    `tf.train.latest_checkpoint` treats the folder as a glob, and returns None if the `checkpoint` file is missing,
    damaged, or names a path from which the files were moved away.
    """
    state = _read_state(train_dir)
    if state and '\0' not in state.model_checkpoint_path:
        # This folder first: slim writes absolute paths, and a copied run must not lead back to the original.
        here = os.path.join(train_dir, os.path.basename(state.model_checkpoint_path))
        for prefix in (here, state.model_checkpoint_path):
            if tf.io.gfile.exists(f'{prefix}.index') or is_of_one_file(prefix):
                return prefix
    return next(reversed(list_checkpoints(train_dir)), None)


def is_of_one_file(path: str) -> bool:
    """Returns whether a file is a TensorFlow checkpoint from before 2017: one table in one file."""
    if not tf.io.gfile.exists(path) or tf.io.gfile.isdir(path):
        return False
    with tf.io.gfile.GFile(path, 'rb') as file:
        file.seek(max(file.size() - len(_TABLE_MAGIC), 0))
        return file.read() == _TABLE_MAGIC


def recognise(path: str) -> Format | None:
    """Returns the format of a checkpoint, given its prefix or file, or None if it is not a checkpoint.

    Raises:
        InputError: the file cannot be read.
    """
    if tf.io.gfile.exists(f'{path}.index'):
        return Format.TENSORFLOW
    if not tf.io.gfile.exists(path) or tf.io.gfile.isdir(path):
        return None
    try:
        with tf.io.gfile.GFile(path, 'rb') as file:
            start = file.read(len(HDF5_MAGIC))
        is_old = is_of_one_file(path)
    except (tf.errors.OpError, OSError) as error:
        raise InputError(f'{path}: {first_line(error)}') from error
    if start.startswith(ZIP_MAGIC):
        return Format.KERAS
    if start == HDF5_MAGIC:
        return Format.WEIGHTS_H5
    return Format.TENSORFLOW_V1 if is_old else None


def find_checkpoint(path: str, flag: str = 'checkpoint_path') -> str:
    """Resolves a path to a checkpoint: a `.keras` or `.weights.h5` file, or the prefix of a TensorFlow checkpoint.

    A TensorFlow checkpoint is given by its prefix, any of its files, or its folder. A folder stands for its latest: the
    one named by the `checkpoint` file, else the one with the highest step, else the only one.

    Args:
        path: The path as given by the user.
        flag: The flag that named it, for messages.

    Raises:
        InputError: there is no checkpoint, a folder has several under other names, or the file's format is another.
    """
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        raise InputError(f'--{flag}={path}: a pipe or a device, not a checkpoint')
    try:
        if re.search(PART_OF_CHECKPOINT, path) or tf.io.gfile.isdir(path) or not tf.io.gfile.exists(path):
            return _find_tensorflow(path, flag)
        found = recognise(path)
        other = other_formats.describe(path) if found is None else None
    except (tf.errors.OpError, OSError) as error:  # for instance a URL scheme that TensorFlow does not support
        raise InputError(f'--{flag}={path}: cannot be read: {first_line(error)}') from error
    if found in (Format.KERAS, Format.WEIGHTS_H5):
        other = other_formats.inside_archive(path)
    if other is not None:
        raise InputError(f'--{flag}={path}: {other}')
    return path


def _find_tensorflow(path: str, flag: str) -> str:
    """Resolves a path to the prefix of a TensorFlow checkpoint."""
    if tf.io.gfile.isdir(path):
        try:
            latest = latest_checkpoint(path)
        except tf.errors.OpError as error:
            raise InputError(f'--{flag}={path}: cannot be read: {first_line(error)}') from error
        return latest if latest is not None else _only_checkpoint(path, flag)
    prefix = re.sub(PART_OF_CHECKPOINT, '', path)
    if tf.io.gfile.exists(f'{prefix}.index') or is_of_one_file(prefix):
        return prefix
    folder = os.path.dirname(prefix) or '.'
    raise no_checkpoint_at(path, folder, tf.io.gfile.listdir(folder) if tf.io.gfile.isdir(folder) else None, flag)


def _only_checkpoint(folder: str, flag: str) -> str:
    """Returns the only checkpoint in a folder, whatever its name.

    Raises:
        InputError: the folder has no checkpoint, or several.
    """
    names = tf.io.gfile.listdir(folder)
    found = prefixes(names)
    of_one_file = sorted(name for name in names if name.endswith(ENDINGS_OF_ONE_FILE))
    found += [name for name in of_one_file if not name.endswith('.ckpt') or is_of_one_file(os.path.join(folder, name))]
    if not found:
        raise no_checkpoint_in(folder, names, flag)
    if len(found) > 1:
        raise InputError(
            f'--{flag}={folder}: several checkpoints, and no file says which is the latest; give one of them: '
            f'{", ".join(os.path.join(folder, name) for name in found)}'
        )
    return os.path.join(folder, found[0])


def new_checkpoints(train_dir: str, interval_secs: float, timeout_secs: float | None) -> Iterator[str]:
    """Yields the latest checkpoint of a folder whenever a new one appears, at least `interval_secs` apart.

    Ends after `timeout_secs` without a new one; never, if that is None. The folder need not exist yet.
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


@dataclasses.dataclass(frozen=True)
class Rotation:
    """The checkpoints subject to rotation in a folder, as TensorFlow lists them in its `checkpoint` file.

    Attributes:
        times: Prefix -> time of writing in seconds since 1970, oldest first.
        last_preserved: When the last permanently kept checkpoint was written; if there is none, when the run began.
    """

    times: dict[str, float]
    last_preserved: float

    def adding(self, prefix: str, time_written: float) -> 'Rotation':
        """Returns a copy with a new latest checkpoint."""
        others = {other: written for other, written in self.times.items() if other != prefix}
        return dataclasses.replace(self, times={**others, prefix: time_written})

    def without_surplus(self, max_to_keep: int, keep_every_n_hours: float | None) -> tuple['Rotation', list[str]]:
        """Returns a copy without the oldest checkpoints beyond `max_to_keep` (0: keep all), and the ones to delete."""
        surplus = list(self.times)[: max(len(self.times) - max_to_keep, 0)] if max_to_keep else []
        preserved, deleted = self.last_preserved, []
        for prefix in surplus:
            if keep_every_n_hours is not None and self.times[prefix] - preserved >= keep_every_n_hours * 3600:
                preserved = self.times[prefix]
            else:
                deleted.append(prefix)
        left = {prefix: written for prefix, written in self.times.items() if prefix not in surplus}
        return Rotation(left, preserved), deleted


def read_rotation(train_dir: str) -> Rotation:
    """Reads TensorFlow's `checkpoint` file; adds newer checkpoints found in the folder, drops missing ones.

    Checkpoints that the file does not list and that are older than the listed ones are kept permanently.
    """
    state, present = _read_state(train_dir), list_checkpoints(train_dir)
    written = {prefix: tf.io.gfile.stat(f'{prefix}.index').mtime_nsec / 1e9 for prefix in present}
    if state is None:
        return Rotation(written, time.time())
    listed = [os.path.join(train_dir, os.path.basename(path)) for path in state.all_model_checkpoint_paths]
    times = dict(zip(listed, state.all_model_checkpoint_timestamps, strict=False))
    oldest = min(map(checkpoint_step, listed), default=-1)
    unlisted = [prefix for prefix in present if prefix not in listed and checkpoint_step(prefix) >= oldest]
    turning = [*(prefix for prefix in listed if prefix in written), *unlisted]
    return Rotation(
        {prefix: times.get(prefix, written[prefix]) for prefix in turning},
        state.last_preserved_timestamp or time.time(),
    )


def write_rotation(train_dir: str, rotation: Rotation) -> None:
    """Writes TensorFlow's `checkpoint` file with relative names, so that the folder can be moved."""
    paths = [os.path.basename(prefix) for prefix in rotation.times]
    lines = [
        f'model_checkpoint_path: "{paths[-1]}"',
        *(f'all_model_checkpoint_paths: "{path}"' for path in paths),
        *(f'all_model_checkpoint_timestamps: {written}' for written in rotation.times.values()),
        f'last_preserved_timestamp: {rotation.last_preserved}',
    ]
    write_text(os.path.join(train_dir, STATE), '\n'.join(lines) + '\n')


def _read_state(train_dir: str) -> Any:
    path = os.path.join(train_dir, STATE)
    if os.path.exists(path) and not os.path.isfile(path):  # a pipe, on which reading may block for ever
        return None
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel('ERROR')  # otherwise it logs parser errors for a damaged file on each call
    try:
        state = tf.train.get_checkpoint_state(train_dir)
    except (tf.errors.OpError, ValueError):
        return None
    finally:
        logger.setLevel(level)
    # TensorFlow ignores text after a zero byte: `config.cfg\0` would be a checkpoint whose index is config.cfg.
    return None if state is not None and '\0' in state.model_checkpoint_path else state


def newest_first(train_dir: str) -> list[str]:
    """Returns the checkpoints of a folder, latest first, so that a reader can fall back to an older one."""
    latest = latest_checkpoint(train_dir)
    others = [prefix for prefix in reversed(list_checkpoints(train_dir)) if prefix != latest]
    return [latest, *others] if latest is not None else others


def checkpoint_of_step(train_dir: str, step: int) -> str | None:
    """Returns the newest checkpoint of a step, or None."""
    return next((prefix for prefix in newest_first(train_dir) if checkpoint_step(prefix) == step), None)


def incomplete_checkpoints(train_dir: str) -> list[str]:
    """Returns the prefixes of data files without an index."""
    names = tf.io.gfile.listdir(train_dir) if tf.io.gfile.isdir(train_dir) else []
    found = [re.match(rf'({PREFIX}-\d+)\.data-', name) for name in names]
    prefixes = {os.path.join(train_dir, match[1]) for match in found if match}
    return sorted(prefixes - set(list_checkpoints(train_dir)), key=checkpoint_step)


def delete_parts(train_dir: str) -> None:
    """Deletes the remains of killed saves: temporary files, and data without an index older than the latest."""
    delete(files_starting(train_dir, PART))
    newest = max(map(checkpoint_step, list_checkpoints(train_dir)), default=-1)
    for prefix in incomplete_checkpoints(train_dir):
        if checkpoint_step(prefix) < newest:
            delete(files_starting(train_dir, f'{os.path.basename(prefix)}.data-'))


def files_starting(folder: str, start: str) -> list[str]:
    """Returns the paths of a folder's files whose names begin with `start`."""
    # Not by a glob: the folder's name may contain special characters of globs.
    names = tf.io.gfile.listdir(folder) if tf.io.gfile.isdir(folder) else []
    return [os.path.join(folder, name) for name in names if name.startswith(start)]


def delete(paths: Iterable[str]) -> None:
    """Deletes the files that exist."""
    for path in paths:
        if tf.io.gfile.exists(path):
            tf.io.gfile.remove(path)


def is_complete(prefix: str) -> bool:
    """Returns whether a checkpoint has its index and its data."""
    return all(tf.io.gfile.exists(prefix + suffix) for suffix in SUFFIXES)


def lies_in(prefix: str, folder: str) -> bool:
    """Returns whether a checkpoint is in a folder; a `checkpoint` file may name one in another folder."""
    return os.path.realpath(os.path.dirname(prefix)) == os.path.realpath(folder)


def set_aside(prefix: str) -> str:
    """Renames a damaged checkpoint, which takes it out of the rotation; returns its new prefix."""
    aside = os.path.join(os.path.dirname(prefix), f'damaged-{os.path.basename(prefix)}')
    for suffix in reversed(SUFFIXES):
        if tf.io.gfile.exists(prefix + suffix):
            tf.io.gfile.rename(prefix + suffix, aside + suffix, overwrite=True)
    return aside
