"""Checks names and paths before TensorFlow is imported, which takes seconds.

    check_names(config)
    check_training(config)

Values that pass are checked again, more closely, where they are used. Only TensorFlow can check paths with `://`.
"""

import os
import re
from collections.abc import Iterable, Mapping
from typing import Any

from configs import names
from configs.evaluation import CLASS_MAPS, REPORT_FILES, EvalConfig, check_predictions_path
from configs.export import ExportConfig, with_format
from configs.options import flat_values
from configs.prediction import PredictConfig
from configs.training import TrainConfig, steps_to_profile
from configs.unread import refused
from support.errors import InputError, unknown_name

PART_OF_CHECKPOINT = r'\.(index|meta|data-\d+-of-\d+)$'
ENDINGS_OF_ONE_FILE = ('.keras', '.weights.h5', '.ckpt')
_NOT_WHOLE = ('.', 'damaged-')
_WRITTEN_IF_ABSENT = ('digits', 'synthetic')


def check_names(config: Any) -> None:
    """Raises InputError for an unknown net, preprocessing, data set, optimizer or schedule."""
    for option, value in flat_values(config).items():
        if option in names.OF_OPTIONS and value is not None:
            names.check_name(option, value)


def check_checkpoint(path: str, flag: str = 'checkpoint_path') -> None:
    """Raises InputError if a path holds neither a checkpoint nor an export; the error lists the folder's content."""
    if '\0' in path:
        raise InputError(f'--{flag}={path!r}: file names cannot contain a zero byte')
    if _is_remote(path):
        return
    if os.path.isdir(path):
        names = _names_in(path)
        if os.access(path, os.R_OK | os.X_OK) and not any(may_be_read(name) for name in names):
            raise no_checkpoint_in(path, names, flag)
        return
    prefix = re.sub(PART_OF_CHECKPOINT, '', path)
    if not os.path.exists(prefix) and not os.path.exists(f'{prefix}.index'):
        folder = os.path.dirname(prefix) or '.'
        raise no_checkpoint_at(path, folder, _names_in(folder) if os.path.isdir(folder) else None, flag)


def no_checkpoint_in(folder: str, names: Iterable[str], flag: str = 'checkpoint_path') -> InputError:
    """Returns the error for a folder without a checkpoint, given the names of its files."""
    names = list(names)
    incomplete = _without_index(names)
    if incomplete:
        return InputError(f'--{flag}={folder}: {_missing_index(folder, incomplete)}')
    # TensorFlow Serving keeps the versions of a net in folders named 1, 2, ...
    deeper = [
        path
        for name in sorted(names, key=lambda name: (len(name), name))
        for path in [os.path.join(folder, name.rstrip('/'))]
        if not _is_remote(folder) and os.path.isfile(os.path.join(path, 'saved_model.pb'))
    ]
    if deeper:
        return InputError(
            f'--{flag}={folder}: no checkpoint in this folder; use the SavedModel inside it: {deeper[-1]}'
        )
    run = [os.path.join(folder, name) for name in sorted(names) if name.lower().endswith(('.onnx', '.tflite'))]
    if run:
        return InputError(
            f'--{flag}={folder}: no checkpoint in this folder; use the file inside it: {", ".join(run[:5])}'
        )
    return InputError(f'--{flag}={folder}: no checkpoint in this folder')


def no_checkpoint_at(path: str, folder: str, names: Iterable[str] | None, flag: str = 'checkpoint_path') -> InputError:
    """Returns the error for a path without a checkpoint, given its folder's file names, or None without a folder."""
    if names is None:
        return InputError(f'--{flag}={path}: no such file; its folder {folder} does not exist')
    names = list(names)
    name = os.path.basename(re.sub(PART_OF_CHECKPOINT, '', path))
    if name in _without_index(names):
        return InputError(f'--{flag}={path}: {_missing_index(folder, [name])}')
    steps = [re.fullmatch(r'(model\.ckpt-(\d+))\.index', other) for other in names]
    present = [match[1] for match in sorted(filter(None, steps), key=lambda match: int(match[2]))]
    present += [other for other in prefixes(names) if other not in present]
    return InputError(f'--{flag}={path}: no such checkpoint; {folder} holds {", ".join(present) or "none"}')


def prefixes(names: Iterable[str]) -> list[str]:
    """Returns the prefixes of TensorFlow's checkpoints among a folder's file names.

    Temporary files of a killed save, and checkpoints that a run has renamed as damaged, are left out.
    """
    found = (name.removesuffix('.index') for name in names if name.endswith('.index'))
    return sorted(prefix for prefix in found if not prefix.startswith(_NOT_WHOLE) and prefix)


def _without_index(names: Iterable[str]) -> list[str]:
    """Returns the prefixes with data but without an index."""
    names = list(names)
    data = {re.sub(PART_OF_CHECKPOINT, '', name) for name in names if re.search(r'\.data-\d+-of-\d+$', name)}
    return sorted(prefix for prefix in data - set(prefixes(names)) if not prefix.startswith(_NOT_WHOLE))


def _missing_index(folder: str, incomplete: list[str]) -> str:
    return (
        f'{os.path.join(folder, incomplete[0])}.index is missing, and the .data file is useless without it; '
        'copy it too, from where the checkpoint was written'
    )


def check_dataset_dir(dataset_name: str | None, path: str | None) -> None:
    """Raises InputError if a data set's folder is missing, unless the data set is written or downloaded on demand."""
    is_made = dataset_name is not None and dataset_name.startswith((names.TFDS, *_WRITTEN_IF_ABSENT))
    if path is not None and not is_made and not _is_remote(path) and not os.path.isdir(path):
        state = 'not a readable folder' if os.path.lexists(path) else 'no such folder'
        raise InputError(f'--dataset_dir={path}: {state}')


def check_file(flag: str, path: str | None, words: tuple[str, ...] = ()) -> None:
    """Raises InputError if a file is missing; `words` are values of the flag that are not files."""
    if path is not None and path not in words and not _is_remote(path) and not os.path.exists(path):
        others = f', and none of {", ".join(words)}' if words else ''
        raise InputError(f'--{flag}={path}: no such file{others}')


def check_place(flag: str, path: str | None, to_be_made: str | None = None) -> None:
    """Raises InputError if no file can be written at a path; the folder `to_be_made` may be missing."""
    if path is None or _is_remote(path):
        return
    folder = os.path.dirname(path) or '.'
    if to_be_made and not os.path.lexists(folder) and os.path.abspath(folder) == os.path.abspath(to_be_made):
        return
    if not os.path.isdir(folder):
        raise InputError(f'--{flag}={path}: folder {folder} does not exist')
    if not path or os.path.isdir(path) or not os.access(path if os.path.exists(path) else folder, os.W_OK):
        raise InputError(f'--{flag}={path}: cannot write a file there')


def check_folder_place(flag: str, path: str | None) -> None:
    """Raises InputError if a folder cannot be created or written to."""
    if path is None or _is_remote(path):
        return
    if not path:
        raise InputError(f'--{flag}: name a folder, or leave the flag out')
    nearest = os.path.abspath(path)
    while not os.path.lexists(nearest):
        nearest = os.path.dirname(nearest)
    if not os.path.isdir(nearest):
        raise InputError(f'--{flag}={path}: {nearest} is not a folder')
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(f'--{flag}={path}: {nearest} is not writable')


def check_apart(files: Mapping[str, str | None], report_dir: str | None) -> None:
    """Raises InputError if a file would overwrite another one or be overwritten by the report.

    Args:
        files: Paths, by the argument that names them: '--results_path'.
        report_dir: The report's folder, if one is written.
    """
    report = () if report_dir is None else REPORT_FILES
    taken = {_one_form(os.path.join(report_dir or '', name)): 'a file of the report' for name in report}
    for argument, path in files.items():
        if path is None:
            continue
        place = _one_form(path)
        if place in taken:
            raise InputError(f'{argument}={path}: is also {taken[place]}; give another name')
        taken[place] = argument


def _one_form(path: str) -> str:
    return path if _is_remote(path) else os.path.realpath(path)


def check_combinations(config: Any) -> None:
    """Raises InputError for flags without effect that the later work would refuse too."""
    for line in refused(config):
        raise InputError(f'{line}; leave it out')


def check_schedule(config: TrainConfig) -> None:
    """Raises InputError if a schedule lacks an option, `--best_metric` is not measured, or no step can be profiled."""
    schedule, length, name = config.schedule, config.length, config.data.dataset_name
    ends = length.max_number_of_steps is not None or length.num_epochs is not None
    is_embedded = name == 'digits' or (name is None and config.data.dataset_dir is None)  # its length has a default
    if schedule.learning_rate_decay_type == 'cosine' and not ends and not is_embedded:
        raise needs_length()
    if schedule.learning_rate_decay_type == 'piecewise' and not schedule.learning_rate_boundaries:
        raise needs_boundaries()
    profiled, steps = steps_to_profile(config.log.profile_steps), length.max_number_of_steps
    if profiled is not None and steps is not None and profiled[0] > steps:
        raise InputError(
            f'--profile_steps={config.log.profile_steps}: training ends at step {steps}, of --max_number_of_steps'
        )
    metric = config.checkpoint.best_metric
    if not re.fullmatch(r'none|accuracy|recall_at_\d+', metric):
        recalls = ''.join(f', recall_at_{k}' for k in config.evaluation.recall_at)
        raise InputError(f'--best_metric={metric}: must be one of accuracy{recalls}, none')


def needs_length() -> InputError:
    """Returns the error for a cosine schedule without a length."""
    return InputError(
        '--learning_rate_decay_type=cosine needs the length of training: give --max_number_of_steps or --num_epochs'
    )


def needs_boundaries() -> InputError:
    """Returns the error for a piecewise schedule without boundaries."""
    return InputError('--learning_rate_decay_type=piecewise needs --learning_rate_boundaries (in epochs)')


def check_training(config: TrainConfig) -> None:
    """Raises InputError for unknown names, missing data and, unless a run is resumed, missing initial weights."""
    check_names(config)
    check_combinations(config)
    check_schedule(config)
    check_dataset_dir(config.data.dataset_name, config.data.dataset_dir)
    path, train_dir = config.checkpoint.checkpoint_path, config.checkpoint.train_dir
    if not _is_remote(train_dir) and os.path.lexists(train_dir) and not os.path.isdir(train_dir):
        raise InputError(f'--train_dir={train_dir}: not a folder; choose another path')
    if path and not _is_remote(train_dir) and not _has_checkpoints(train_dir):
        check_checkpoint(path)


def check_export(config: ExportConfig) -> None:
    """Raises InputError for unknown names and formats, missing checkpoints and images, and an existing output."""
    config = with_format(config)
    check_names(config)
    options = config.export
    if options.format not in names.EXPORT_FORMATS:
        raise unknown_name('format', str(options.format), names.EXPORT_FORMATS)
    check_combinations(config)
    check_checkpoint(options.checkpoint_path)
    if not options.overwrite and options.output_path and os.path.lexists(options.output_path.rstrip('/')):
        raise InputError(f'--output_path={options.output_path} already exists; choose another path, or add --overwrite')
    if options.verification_images and not set('*?[') & set(options.verification_images):
        check_file('verification_images', options.verification_images)


def check_prediction(config: PredictConfig) -> None:
    """Raises InputError for unknown names, a missing net or labels file, and outputs that cannot be written."""
    check_names(config)
    check_combinations(config)
    check_checkpoint(config.prediction.checkpoint_path)
    check_file('labels_path', config.foreign.labels_path)
    check_place('output_path', config.output.output_path)
    check_place('visualize', config.output.visualize)


def check_evaluation(config: EvalConfig) -> None:
    """Raises InputError for unknown names, missing files (checkpoints only if not waited for) and invalid outputs."""
    check_names(config)
    options = config.evaluation
    if config.output.eval_interval_secs is None:
        for path in options.compare or (options.checkpoint_path,):
            check_checkpoint(path, 'compare' if options.compare else 'checkpoint_path')
    if options.dataset_name is not None:  # else the run's, which may be written or downloaded
        check_dataset_dir(options.dataset_name, options.dataset_dir)
    check_file('labels_path', config.foreign.labels_path)
    check_file('class_map', options.class_map, CLASS_MAPS)
    check_file('real_labels', options.real_labels)
    check_predictions_path(config.output.predictions_path)
    check_folder_place('eval_dir', config.output.eval_dir)
    check_folder_place('report_dir', config.output.report_dir)
    files = {flag: getattr(config.output, flag) for flag in ('results_path', 'predictions_path')}
    for flag, path in files.items():
        check_place(flag, path, config.output.report_dir)
    check_apart({f'--{flag}': path for flag, path in files.items()}, config.output.report_dir)


def _has_checkpoints(folder: str) -> bool:
    """Returns whether a local folder has checkpoints of a run."""
    return os.path.isdir(folder) and any(name.endswith('.index') for name in _names_in(folder))


def _is_remote(path: str) -> bool:
    return '://' in path


def may_be_read(name: str) -> bool:
    """Returns whether a file name suggests that its folder has a checkpoint or a SavedModel."""
    return name in ('checkpoint', 'saved_model.pb') or name.endswith(('.index', *ENDINGS_OF_ONE_FILE))


def _names_in(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
