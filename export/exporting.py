"""The steps of an export: find the format, read the checkpoint, write to a temporary path, compare, rename.

export(make_config(ExportConfig, checkpoint_path='/tmp/tfmodel', format='keras', output_path='/tmp/net.keras'))
"""

import json
import os
import re
import tempfile
import time
from collections.abc import Callable

import tensorflow as tf
from absl import logging

from configs.export import ExportConfig, ExportOptions, with_format
from configs.names import EXPORT_ENDINGS
from datasets.text_files import write_text
from engine.classifiers import size_in_bytes
from export.export_factory import check_options
from export.onnx_file import is_sample_folder, sample_folder, write_sample_test_data
from export.source import Source, load_source
from support.atomic import atomic_path, check_name, recover
from support.errors import InputError, first_line

_FLAG = 'output_path'
_LONGEST_ENDING = '.json'  # longest suffix of files written beside the export


def export(config: ExportConfig) -> str:
    """Exports a checkpoint, and prints the comparisons with it.

    Returns:
        The path of the export.

    Raises:
        InputError: Any error that the user can correct; nothing is written then.
    """
    start = time.monotonic()
    config = with_format(config)
    options = config.export
    chosen, ending = check_options(options), EXPORT_ENDINGS[options.format or '']
    path = check_output(options.output_path, ending, options.overwrite, chosen.members)
    if chosen.is_run:
        _check_beside(options, path)
    source = load_source(options, config.net, chosen.layout, chosen.is_run)
    with atomic_path(path, _FLAG) as part:
        chosen.write(source, part)
        lines = chosen.verify(source, part)
        _check_free(path, ending, options.overwrite, chosen.members)  # others may have written there meanwhile
    if chosen.is_run:
        _write_beside(source, path)
    kind = 'moving averages' if source.averaged else 'weights'
    print(f'exported the {kind} of {source.prefix}, step {source.step}, to {path}')
    for line in [*lines, f'{size_in_bytes(path) / 1e6:.2f} MB, in {time.monotonic() - start:.1f} seconds']:
        print(line)
    return path


def check_output(path: str | None, ending: str, overwrite: bool, members: str = '') -> str:
    """Returns the path if it can be written; called before any work.

    Args:
        path: Value of `--output_path`.
        ending: Required ending of the file name; empty for a folder.
        overwrite: Whether an earlier export may be replaced.
        members: Regular expression of the names in an exported folder; other files are the user's.

    Raises:
        InputError: No path, a wrong ending, too long a name, an existing file, or another process is writing it.
    """
    if not path or '://' in path:
        raise InputError(f'--output_path={path or ""}: name a local {"file" if ending else "folder"}')
    path = path.rstrip('/') or '/'
    if not ending:
        _check_folder_name(path)
    elif not path.endswith(ending) or os.path.basename(path) == ending:
        raise InputError(f'--output_path={path}: the name of such a file ends in {ending}, for instance net{ending}')
    check_name(path, _FLAG, _LONGEST_ENDING)
    _check_folder(path)
    recover(path, _FLAG)
    _check_free(path, ending, overwrite, members)
    return path


def _check_free(path: str, ending: str, overwrite: bool, members: str = '') -> None:
    """Raises InputError if something exists at a path that may not be replaced; see `check_output`."""
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise InputError(f'--output_path={path} already exists; choose another path, or add --overwrite')
    if os.path.islink(path) or not (os.path.isfile(path) if ending else os.path.isdir(path)):
        raise InputError(
            f'--output_path={path} exists and is not a {"file" if ending else "folder"}: it is not replaced'
        )
    others = [] if ending else sorted(name for name in os.listdir(path) if not re.fullmatch(members, name))
    if others:
        raise InputError(
            f'--output_path={path} holds {others[0]}, which no export has written: the folder is not replaced'
        )


def _check_folder_name(path: str) -> None:
    if not os.path.basename(path):
        raise InputError(f'--output_path={path}: name a folder to create')
    if re.search(r'[\[\\]', os.path.abspath(path)):
        raise InputError(f'--output_path={path}: TensorFlow cannot read folders from paths with [ or \\')


def _check_folder(path: str) -> None:
    """Raises InputError if the folder of an export is not writable, or cannot be created; tries it with a file.

    Raises:
        InputError: With the folder and the reason.
    """
    folder = os.path.dirname(os.path.abspath(path))
    while not os.path.lexists(folder):
        folder = os.path.dirname(folder)
    try:
        with tempfile.NamedTemporaryFile(prefix='.part-', dir=folder):
            pass
    except OSError as error:
        reason = 'no folder' if isinstance(error, NotADirectoryError) else f'not to be written to: {error.strerror}'
        raise InputError(f'--output_path={path}: {folder} is {reason}') from error


def _check_beside(options: ExportOptions, path: str) -> None:
    """Raises InputError if a file beside the export, its description or sample data, would replace something else.

    Raises:
        InputError: A file exists there.
    """
    description, samples = _description(path), sample_folder(path)
    names: dict[str, Callable[[str], bool]] = {description: os.path.isfile}
    if options.sample_test_data:
        recover(samples, _FLAG)
        names[samples] = is_sample_folder
    for name, is_replaceable in names.items():
        if os.path.lexists(name) and not (options.overwrite and is_replaceable(name)):
            raise InputError(
                f'--output_path={path}: {name}, which is written beside it, exists; move it, or add --overwrite'
            )


def _description(path: str) -> str:
    return f'{path}.json'


def _write_beside(source: Source, path: str) -> None:
    try:
        write_text(_description(path), json.dumps(source.description(), indent=1) + '\n')
    except (OSError, tf.errors.OpError) as error:
        raise InputError(f'--output_path={path}: {first_line(error)}') from error
    samples = sample_folder(path)
    if source.options.sample_test_data:
        with atomic_path(samples, _FLAG) as part:
            write_sample_test_data(source, path, part)
    elif os.path.isdir(samples):
        message = '%s holds sample data of the file that was replaced; export with --sample_test_data to renew it'
        logging.warning(message, samples)
