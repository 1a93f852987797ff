"""The road of an export: find the format, read the checkpoint, write beside, read back and compare, rename.

export(make_config(ExportConfig, checkpoint_path='/tmp/tfmodel', format='keras', output_path='/tmp/net.keras'))
"""

import json
import os
import time
from collections.abc import Callable

import tensorflow as tf
from absl import logging

from configs.export import ExportConfig, ExportOptions, with_format
from datasets.text_files import write_text
from engine.classifiers import size_in_bytes
from export.export_factory import check_options
from export.onnx_file import is_sample_folder, sample_folder, write_sample_test_data
from export.output import check_free, check_output
from export.source import Source, load_source
from support.atomic import atomic_path, recover
from support.errors import InputError, first_line

_FLAG = 'output_path'


def export(config: ExportConfig) -> str:
    """Exports a checkpoint as the config says, and prints what was compared.

    Returns:
        The path that was written.

    Raises:
        InputError: whatever the user can put right; nothing is written then.
    """
    start = time.monotonic()
    config = with_format(config)
    options = config.export
    chosen = check_options(options)
    path = check_output(options.output_path, chosen.ending, options.overwrite, chosen.members)
    if chosen.is_run:
        _check_beside(options, path)
    source = load_source(config, chosen.layout)
    with atomic_path(path, _FLAG) as part:
        chosen.write(source, part)
        lines = chosen.verify(source, part)
        check_free(path, chosen.ending, options.overwrite, chosen.members)  # for as long as that took, others wrote too
    if chosen.is_run:
        _write_beside(source, path)
    kind = 'moving averages' if source.net.averaged else 'weights'
    print(f'exported the {kind} of {source.checkpoint}, step {source.step}, to {path}')
    for line in [*lines, f'{size_in_bytes(path) / 1e6:.2f} MB, in {time.monotonic() - start:.1f} seconds']:
        print(line)
    return path


def _check_beside(options: ExportOptions, path: str) -> None:
    """Refuses to write where what comes beside a file, its description and a folder of sample data, may not replace.

    Raises:
        InputError: something is there already.
    """
    description, samples = _description(path), sample_folder(path)
    names: dict[str, Callable[[str], bool]] = {description: os.path.isfile}
    if options.sample_test_data:
        recover(samples, _FLAG)
        names[samples] = is_sample_folder
    for name, is_replaceable in names.items():
        if os.path.lexists(name) and not (options.overwrite and is_replaceable(name)):
            raise InputError(
                f'--output_path={path}: {name}, which is written beside it, exists; move it, or --overwrite'
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
