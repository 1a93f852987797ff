"""What the scripts refuse before TensorFlow is imported, which takes seconds: unknown names, paths that do not exist.

    check_names(config)
    check_training(config)

Whatever passes is checked again, and more closely, where it is used. Paths with `://` are TensorFlow's alone to find.
"""

import os
import re
from collections.abc import Iterable
from typing import Any

from configs import names
from configs.config import TrainConfig
from configs.errors import InputError, unknown_name
from configs.evaluation import EvalConfig
from configs.export import ExportConfig, with_format
from configs.options import flat_values

_PART_OF_CHECKPOINT = r'\.(index|meta|data-\d+-of-\d+)$'
_WRITTEN_IF_ABSENT = ('digits', 'synthetic')


def check_names(config: Any) -> None:
    """Refuses unknown names of nets, preprocessings, data sets, optimizers and schedules."""
    for option, value in flat_values(config).items():
        if option in names.OF_OPTIONS and value is not None:
            names.check_name(option, value)


def check_checkpoint(path: str) -> None:
    """Refuses a path that no checkpoint and no export can be read from, as nothing lies there.

    Raises:
        InputError: with what the folder holds.
    """
    if _is_remote(path):
        return
    if os.path.isdir(path):
        if os.access(path, os.R_OK | os.X_OK) and not any(_may_be_read(name) for name in _names_in(path)):
            raise no_checkpoint_in(path)
        return
    prefix = re.sub(_PART_OF_CHECKPOINT, '', path)
    if not os.path.exists(path) and not os.path.exists(f'{prefix}.index'):
        folder = os.path.dirname(prefix) or '.'
        found = [re.fullmatch(r'(model\.ckpt-(\d+))\.index', name) for name in _names_in(folder)]
        present = [match[1] for match in sorted(filter(None, found), key=lambda match: int(match[2]))]
        raise no_checkpoint_at(path, folder, present if os.path.isdir(folder) else None)


def no_checkpoint_in(folder: str) -> InputError:
    """Returns the error for a folder without a checkpoint."""
    return InputError(f'--checkpoint_path={folder}: no checkpoint in this folder')


def no_checkpoint_at(path: str, folder: str, present: Iterable[str] | None) -> InputError:
    """Returns the error for a path without one.

    Args:
        path: As it was given.
        folder: Where it would lie.
        present: Names of the checkpoints there; None where there is no such folder.
    """
    if present is None:
        return InputError(f'--checkpoint_path={path}: no such file, and no folder {folder}')
    held = ', '.join(present) or 'none'
    return InputError(f'--checkpoint_path={path}: no such checkpoint; {folder} holds {held}')


def check_dataset_dir(dataset_name: str | None, path: str | None) -> None:
    """Refuses a folder of a data set that is not there; the embedded one is written, those of TFDS are downloaded."""
    is_made = dataset_name is not None and dataset_name.startswith((names.TFDS, *_WRITTEN_IF_ABSENT))
    if path is not None and not is_made and not _is_remote(path) and not os.path.isdir(path):
        state = 'not a folder that can be read' if os.path.lexists(path) else 'no such folder'
        raise InputError(f'--dataset_dir={path}: {state}')


def check_file(flag: str, path: str | None) -> None:
    """Refuses a file that is not there."""
    if path is not None and not _is_remote(path) and not os.path.exists(path):
        raise InputError(f'--{flag}={path}: no such file')


def check_training(config: TrainConfig) -> None:
    """Refuses unknown names, data that does not exist and, unless a run is resumed, initial weights that do not."""
    check_names(config)
    check_dataset_dir(config.data.dataset_name, config.data.dataset_dir)
    path, train_dir = config.checkpoint.checkpoint_path, config.checkpoint.train_dir
    if path and not _is_remote(train_dir) and not _has_checkpoints(train_dir):
        check_checkpoint(path)


def check_export(config: ExportConfig) -> None:
    """Refuses unknown names and formats, and checkpoints that do not exist."""
    config = with_format(config)
    check_names(config)
    if config.export.format not in names.EXPORT_FORMATS:
        raise unknown_name('format', str(config.export.format), names.EXPORT_FORMATS)
    check_checkpoint(config.export.checkpoint_path)


def check_evaluation(config: EvalConfig) -> None:
    """Refuses unknown names, and checkpoints, unless they are waited for, data, or labels that do not exist."""
    check_names(config)
    options = config.evaluation
    if config.output.eval_interval_secs is None:
        for path in options.compare or (options.checkpoint_path,):
            check_checkpoint(path)
    if options.dataset_name is not None:  # else it is the run's own, which may be written or downloaded
        check_dataset_dir(options.dataset_name, options.dataset_dir)
    check_file('labels_path', config.foreign.labels_path)


def _has_checkpoints(folder: str) -> bool:
    """Says whether a folder on this machine has checkpoints of a run."""
    return os.path.isdir(folder) and any(name.endswith('.index') for name in _names_in(folder))


def _is_remote(path: str) -> bool:
    return '://' in path


def _may_be_read(name: str) -> bool:
    return name in ('checkpoint', 'saved_model.pb') or name.endswith('.index')


def _names_in(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
