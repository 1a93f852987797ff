"""The folder of a run: checkpoints, `config.cfg`, `model.json`, `data.json`, event files.

with lock_run_dir(train_dir, cluster):      # only on the chief, like the following
    check_can_resume(run)                   # compares existing checkpoints with this run
    describe(run)
"""

import contextlib
import json
import os
import re
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf
from absl import logging

from configs.options import flat_options, flat_values, from_flagfile, to_flagfile
from configs.training import TrainConfig
from datasets.dataset_factory import Dataset
from datasets.text_files import load_json, write_text
from engine import checkpoints
from engine.classifiers.model_spec import ModelSpec
from engine.distributed.cluster import Cluster
from engine.distributed.kernels import describe_kernels
from engine.runs.files import CONFIG, DATA, LOCK
from engine.training.setup import Run
from support.errors import InputError, first_line
from support.folder_lock import FolderLock
from support.tables import brief, format_table

# Fields that --force_resume cannot override: the variables would have other shapes.
_SHAPES = ('model_name', 'num_classes', 'channels', 'depth_multiplier')
# Groups and options that may change on resuming, without a warning: they do not change the results of training.
FREE_GROUPS = ('length', 'checkpoint', 'log', 'devices', 'evaluation', 'cluster', 'plan')
_FREE_OPTIONS = ('dataset_dir', 'cache', 'data_service')
# Always among the options that TensorBoard compares, default or not.
_COMPARED = (
    'model_name', 'dataset_name', 'batch_size', 'optimizer', 'learning_rate', 'learning_rate_decay_type',
    'weight_decay', 'num_epochs', 'max_number_of_steps', 'seed',
)  # fmt: skip
# Groups that concern a process, not the run.
OF_PROCESS = ('cluster', 'plan')

_Row = tuple[str, Any, Any]


def _make(train_dir: str) -> None:
    if not train_dir:
        raise InputError('--train_dir=: name a folder')
    if re.search(r'[\[\\]', train_dir):
        raise InputError(f'--train_dir={train_dir}: TensorFlow cannot read checkpoints from paths with [ or \\')
    try:
        tf.io.gfile.makedirs(train_dir)
    except (OSError, tf.errors.OpError) as error:
        raise InputError(f'--train_dir={train_dir}: {first_line(error)}') from error


@contextlib.contextmanager
def lock_run_dir(train_dir: str, cluster: Cluster) -> Iterator[None]:
    """Creates the run's folder, locks it, and deletes the temporary files of a killed trainer.

    Raises:
        InputError: the folder cannot be created, or another trainer holds the lock.
    """
    with contextlib.ExitStack() as stack:
        if cluster.is_chief:
            _make(train_dir)
            stack.enter_context(FolderLock(train_dir, LOCK, flag='train_dir', user='trainer'))
            checkpoints.delete_parts(train_dir)
        yield


def check_can_resume(run: Run) -> None:
    """Checks that a run may resume: another net or other data is an error, other changes cause warnings.

    Args:
        run: The run to resume; its `train_dir` records its earlier options.

    Raises:
        InputError: the net or the data differ; the message has a table of differences and advice.
    """
    config, train_dir = run.config, run.config.checkpoint.train_dir
    before = ModelSpec.load(train_dir)
    if checkpoints.latest_checkpoint(train_dir) is None:
        return
    fixed: list[_Row] = []
    changed: list[_Row] = []
    if before is not None:
        fixed += before.differences(run.spec)
    values, options = _load_config(train_dir), flat_options(TrainConfig)
    # The length matters to cosine decay, which ends at the last step.
    free_groups = set(FREE_GROUPS) - ({'length'} if config.schedule.learning_rate_decay_type == 'cosine' else set())
    for name, value in flat_values(config).items():
        option, earlier = options[name], values.get(name, value)
        is_free = name in _FREE_OPTIONS or (option.group in free_groups and not option.fixed)
        if earlier == value or is_free:
            continue
        (fixed if option.fixed else changed).append((name, earlier, value))
    advice = 'delete it to go on without the comparison'
    earlier_data = load_json(os.path.join(train_dir, DATA), dict, advice)
    if earlier_data is not None and earlier_data != (now := _data(run.dataset)):
        fixed.append(('examples', _describe_data(earlier_data), _describe_data(now)))
    fixed = list({row[0]: row for row in fixed}.values())
    impossible = [row for row in fixed if row[0] in _SHAPES]
    if impossible or (fixed and not config.checkpoint.force_resume):
        raise InputError(_refusal(train_dir, fixed, can_be_forced=not impossible))
    for name, earlier, value in fixed + changed:
        logging.warning('%s was %s in this run so far, and is %s from now on', name, brief(earlier), brief(value))
    earlier_kernels, kernels = ModelSpec.load_kernels(train_dir), describe_kernels(run.strategy)
    if earlier_kernels not in (None, kernels):
        logging.warning(
            'this run was computed by %s so far, and is computed by %s from now on: its results may differ in the last '
            'bits from those of an uninterrupted run',
            earlier_kernels, kernels,
        )  # fmt: skip


def _refusal(train_dir: str, rows: Sequence[_Row], can_be_forced: bool) -> str:
    table = [('', 'there', 'now'), *((name, brief(there), brief(now)) for name, there, now in rows)]
    force = ', or go on with --force_resume, which needs only that the variables are the same' if can_be_forced else ''
    return '\n'.join(
        [
            f'--train_dir={train_dir} holds a run that differs:',
            format_table(table, indent='  '),
            f'Give the flags of that run (its {CONFIG} is a flagfile), or another --train_dir{force}',
        ]
    )


def _load_config(train_dir: str) -> dict[str, Any]:
    """Reads the run's earlier options from config.cfg; empty if it is missing or damaged."""
    path = os.path.join(train_dir, CONFIG)
    if not tf.io.gfile.exists(path):
        return {}
    try:
        with tf.io.gfile.GFile(path) as file:
            text = file.read()
        if '--train_dir=' not in text:
            raise ValueError('no flagfile')
        return from_flagfile(TrainConfig, text)
    except (ValueError, tf.errors.OpError) as error:
        logging.warning('%s: damaged, so flags are not compared with it: %s', path, first_line(error))
        return {}


def _data(dataset: Dataset) -> dict[str, Any]:
    return {'num_examples': dataset.num_examples, 'digest': dataset.identity()}


def _describe_data(data: dict[str, Any]) -> str:
    return f'{data.get("num_examples")} ({str(data.get("digest"))[:8]})'


def compared_options(config: TrainConfig) -> dict[str, bool | int | float | str]:
    """Returns the options for TensorBoard's table of runs: the main ones, and those that change results, if given."""
    options, compared = flat_options(TrainConfig), {}
    for name, value in flat_values(config).items():
        option = options[name]
        changes_results = option.fixed or option.group not in FREE_GROUPS or name == 'checkpoint_path'
        is_given = value != option.default and changes_results and name not in _FREE_OPTIONS
        if value is not None and (name in _COMPARED or is_given):
            compared[name] = ','.join(map(str, value)) if isinstance(value, tuple) else value
    return compared


def describe(run: Run) -> None:
    """Writes config.cfg (a flagfile that repeats the run), model.json (with the kernels), and data.json.

    Raises:
        InputError: the folder cannot be written to.
    """
    train_dir = run.config.checkpoint.train_dir
    try:
        write_text(os.path.join(train_dir, CONFIG), to_flagfile(run.config, without=OF_PROCESS))
        write_text(os.path.join(train_dir, DATA), json.dumps(_data(run.dataset)) + '\n')
        run.spec.save(train_dir, describe_kernels(run.strategy))
    except (OSError, tf.errors.OpError) as error:
        raise InputError(f'--train_dir={train_dir}: {first_line(error)}') from error
