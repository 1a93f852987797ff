"""Checkpoints: `model.ckpt-<step>` files whose keys are slim's variable names.

    save(train_dir, step, {'alexnet_v2/conv1/weights': variable, ...}, max_to_keep=5)
    prefix = find_checkpoint(train_dir)            # the latest one, or the file that was named
    restore(prefix, {'alexnet_v2/conv1/weights': variable, ...})

They are written by the same kernel as TensorFlow 1's `Saver` wrote them with (a table of name -> tensor), so a
checkpoint of slim's is read like one of ours, and ours have the format that slim reads. The object graph that
`tf.train.Checkpoint` adds would only put names between that mean nothing outside of Keras.
"""

import dataclasses
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from absl import logging

from configs.config import OptimizerOptions
from configs.errors import InputError, first_line
from engine.moving_averages import ExponentialMovingAverage
from engine.optimizers import OPTIMIZERS

Reader = Any  # what `tf.train.load_checkpoint` returns; its class has no public name

STEP_KEY = 'global_step'
IMAGES_SEEN_KEY = 'images_seen'
_PREFIX = 'model.ckpt'
_POLL_SECS = 1.0
_SUFFIXES = ('.data-00000-of-00001', '.index')  # in this order: an index says that its data is complete


def checkpoint_step(prefix: str) -> int:
    """Returns the step in a checkpoint's name, or -1 if there is none."""
    match = re.search(r'-(\d+)$', prefix)
    return int(match[1]) if match else -1


def list_checkpoints(train_dir: str) -> list[str]:
    """Returns the prefixes of the checkpoints in a folder, the oldest step first."""
    if not tf.io.gfile.isdir(train_dir):
        return []
    names = tf.io.gfile.listdir(train_dir)
    found = [name.removesuffix('.index') for name in names if re.fullmatch(rf'{_PREFIX}-\d+\.index', name)]
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


def save(
    train_dir: str, step: int, variables: Mapping[str, tf.Variable | tf.Tensor | np.generic], max_to_keep: int
) -> str:
    """Writes `model.ckpt-<step>` and makes it the latest; returns its prefix.

    The files get their names only when they are complete, the index last, so that whatever has an index is whole.

    Raises:
        InputError: the folder cannot be written to, or the disk is full; checkpoints that were there are unharmed.
    """
    prefix = os.path.join(train_dir, f'{_PREFIX}-{step}')
    part = os.path.join(train_dir, f'.part-{_PREFIX}-{step}')
    before = [other for other in list_checkpoints(train_dir) if other != prefix]
    surplus = before[: max(len(before) + 1 - max_to_keep, 0)] if max_to_keep else []
    names = sorted(variables)
    tensors = [tf.convert_to_tensor(variables[name]) for name in names]
    try:
        tf.raw_ops.SaveV2(prefix=part, tensor_names=names, shape_and_slices=[''] * len(names), tensors=tensors)
        for suffix in _SUFFIXES:
            tf.io.gfile.rename(part + suffix, prefix + suffix, overwrite=True)
        _write_state(train_dir, [*before[len(surplus) :], prefix])
        for old in surplus:
            _delete(old + suffix for suffix in reversed(_SUFFIXES))
    except (tf.errors.OpError, OSError) as error:
        _delete(_files(train_dir, f'{os.path.basename(part)}.'))
        if not tf.io.gfile.exists(f'{prefix}.index'):
            _delete([prefix + _SUFFIXES[0]])
        kept = latest_checkpoint(train_dir)
        raise InputError(
            f'cannot save {prefix}: {first_line(error)}; the last good checkpoint is {kept or "none"}. Make room, or '
            'put it right, and start again with the same --train_dir'
        ) from error
    return prefix


def _write_state(train_dir: str, prefixes: Sequence[str]) -> None:
    """Writes TensorFlow's `checkpoint` file, with names relative to the folder, so that it can be moved."""
    paths = [os.path.basename(prefix) for prefix in prefixes]
    lines = [f'model_checkpoint_path: "{paths[-1]}"', *(f'all_model_checkpoint_paths: "{path}"' for path in paths)]
    write_text(os.path.join(train_dir, 'checkpoint'), '\n'.join(lines) + '\n')


def _files(folder: str, start: str) -> list[str]:
    # Not by a glob: the folder's name may have characters that it would interpret.
    names = tf.io.gfile.listdir(folder) if tf.io.gfile.isdir(folder) else []
    return [os.path.join(folder, name) for name in names if name.startswith(start)]


def _delete(paths: Iterable[str]) -> None:
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
        _delete([part])
        raise


def open_checkpoint(prefix: str) -> Reader:
    """Opens a checkpoint for reading.

    Raises:
        InputError: it is missing, truncated, or no checkpoint.
    """
    try:
        return tf.train.load_checkpoint(prefix)
    except (tf.errors.OpError, ValueError, RuntimeError) as error:
        raise InputError(f'{prefix}: not a checkpoint that can be read: {first_line(error)}') from error


def read(reader: Reader, prefix: str, name: str) -> np.ndarray:
    """Reads one tensor.

    Raises:
        InputError: the checkpoint is damaged.
    """
    try:
        return reader.get_tensor(name)
    except (tf.errors.OpError, ValueError, RuntimeError, IndexError) as error:
        raise InputError(f'{prefix}: truncated or damaged: {name} cannot be read: {first_line(error)}') from error


def read_int(prefix: str, name: str, default: int) -> int:
    """Reads an integer such as `global_step`, or returns the default where the checkpoint has none."""
    reader = open_checkpoint(prefix)
    return int(read(reader, prefix, name)) if reader.has_tensor(name) else default


@dataclasses.dataclass(frozen=True)
class Difference:
    """A variable for which checkpoint and net do not agree; a shape is None where it is missing."""

    name: str
    wanted: tuple[int, ...] | None
    found: tuple[int, ...] | None


def compare(reader: Reader, shapes: Mapping[str, Sequence[int]], ignore: Callable[[str], bool]) -> list[Difference]:
    """Lists the variables that the checkpoint lacks, has in another shape, or has beyond those asked for.

    Args:
        reader: Of the checkpoint.
        shapes: Shape of each variable that is wanted, by name.
        ignore: Says of a name in the checkpoint that nobody asks for whether that is as it should be.
    """
    found = {name: tuple(shape) for name, shape in reader.get_variable_to_shape_map().items()}
    wanted = {name: tuple(shape) for name, shape in shapes.items()}
    names = [*wanted, *sorted(name for name in found if name not in wanted and not ignore(name))]
    rows = [Difference(name, wanted.get(name), found.get(name)) for name in names]
    return [row for row in rows if row.wanted != row.found]


def difference_table(differences: Iterable[Difference]) -> str:
    """Returns the table of what differs, a line a variable."""
    rows = [('variable', 'in the net', 'in the checkpoint')]
    rows += [(row.name, _shape(row.wanted), _shape(row.found)) for row in differences]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return '\n'.join(
        '  ' + '  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _shape(shape: tuple[int, ...] | None) -> str:
    return 'missing' if shape is None else 'x'.join(map(str, shape)) or 'scalar'


def is_training_state(name: str) -> bool:
    """Says whether a name in a checkpoint is a counter, an optimizer slot or a moving average, not a weight."""
    return name in _SCALARS or name.endswith(_SLOTS)


_KEPT = tuple(rule(OptimizerOptions()) for rule in OPTIMIZERS.values())
_SCALARS = {STEP_KEY, IMAGES_SEEN_KEY, *(name for rule in _KEPT for name in rule.power_bases())}
_SLOTS = (ExponentialMovingAverage.SUFFIX, *(f'/{slot}' for rule in _KEPT for slot in rule.slot_starts()))


def restore(prefix: str, variables: Mapping[str, tf.Variable], unused: Iterable[str] = ()) -> None:
    """Assigns every variable its value from the checkpoint; all are checked before any is changed.

    Args:
        prefix: The checkpoint.
        variables: What to assign, by the name in the checkpoint.
        unused: Names that the checkpoint may have beside these, besides counters, slots and moving averages.

    Raises:
        InputError: the checkpoint is missing, damaged, or of another net (with a table of what differs).
    """
    reader = open_checkpoint(prefix)
    shapes = {name: variable.shape for name, variable in variables.items()}
    expected = set(unused)
    differences = compare(reader, shapes, ignore=lambda name: is_training_state(name) or name in expected)
    if differences:
        raise InputError(f'{prefix} is not of this net or run; what differs:\n{difference_table(differences)}')
    values = {name: read(reader, prefix, name) for name in variables}
    for name, variable in variables.items():
        variable.assign(values[name])


def warm_start(
    path: str, variables: Mapping[str, tf.Variable], exclude_scopes: Sequence[str], ignore_missing: bool
) -> None:
    """Assigns weights from a checkpoint for fine-tuning; neither optimizer slots nor the step, as slim does.

    Args:
        path: A checkpoint, or a folder, whose latest is taken.
        variables: The net's variables by name.
        exclude_scopes: Prefixes of names that keep their initial values.
        ignore_missing: Warn, instead of failing, of variables that the checkpoint lacks.

    Raises:
        InputError: no checkpoint, nothing to restore, a variable that is missing or has another shape.
    """
    prefix = find_checkpoint(path)
    reader = open_checkpoint(prefix)
    wanted = {name: v for name, v in variables.items() if not name.startswith(tuple(exclude_scopes))}
    differences = compare(reader, {name: v.shape for name, v in wanted.items()}, ignore=lambda name: True)
    missing = [row.name for row in differences if row.found is None]
    if (not ignore_missing and missing) or any(row.found is not None for row in differences):
        raise InputError(
            f'--checkpoint_path={path}: {prefix} does not fit the net; what differs:\n{difference_table(differences)}\n'
            'Leave variables out with --checkpoint_exclude_scopes, or missing ones with --ignore_missing_vars'
        )
    for name in missing:
        logging.warning('%s is not in %s and keeps its initial value', name, prefix)
    restored = [name for name in wanted if name not in missing]
    if not restored:
        raise InputError(f'--checkpoint_path={path}: {prefix} has none of the variables of the net')
    values = {name: read(reader, prefix, name) for name in restored}
    for name, value in values.items():
        variables[name].assign(value)
    logging.info(
        'fine-tuning from %s: %d variables restored, %d excluded',
        prefix,
        len(restored),
        len(variables) - len(wanted),
    )
