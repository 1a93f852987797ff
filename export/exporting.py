"""The road of an export: find the format, read the checkpoint, write beside, read back and compare, rename.

export(make_config(ExportConfig, checkpoint_path='/tmp/tfmodel', format='keras', output_path='/tmp/net.keras'))
"""

import json
import os
import shutil
import time

import tensorflow as tf

from configs.errors import InputError, first_line
from configs.export import ExportConfig
from engine.classifiers import size_in_bytes
from engine.text_files import write_text
from engine.written_beside import written_beside
from export.export_factory import check_options
from export.onnx_file import SAMPLE_FILES, write_sample_test_data
from export.output import check_output
from export.source import Source, load_source


def export(config: ExportConfig) -> str:
    """Exports a checkpoint as the config says, and prints what was compared.

    Returns:
        The path that was written.

    Raises:
        InputError: whatever the user can put right; nothing is written then.
    """
    options, start = config.export, time.monotonic()
    chosen = check_options(options)
    path = check_output(options.output_path, chosen.ending, options.overwrite, chosen.members)
    beside = _beside(config, path) if chosen.is_run else []
    source = load_source(config, chosen.layout)
    with written_beside(path, 'output_path') as part:
        chosen.write(source, part)
        lines = chosen.verify(source, part)
    if beside:
        _write_beside(source, path, beside)
    kind = 'moving averages' if source.net.averaged else 'weights'
    print(f'exported the {kind} of {source.checkpoint}, step {source.step}, to {path}')
    for line in [*lines, f'{size_in_bytes(path) / 1e6:.2f} MB, in {time.monotonic() - start:.1f} seconds']:
        print(line)
    return path


def _beside(config: ExportConfig, path: str) -> list[str]:
    """Returns what is written beside a file: its description, and folders of sample data.

    Raises:
        InputError: something is there already.
    """
    options, folder = config.export, os.path.dirname(path)
    names = [f'{path}.json', *(os.path.join(folder, f'test_data_set_{i}') for i in range(options.sample_test_data))]
    for name in names:
        if os.path.lexists(name) and not (options.overwrite and _is_replaceable(name)):
            raise InputError(
                f'--output_path={path}: {name}, which is written beside it, exists; move it, or --overwrite'
            )
    return names


def _is_replaceable(name: str) -> bool:
    """Says whether what stands beside a file can be of an earlier export."""
    if not os.path.isdir(name):
        return name.endswith('.json')
    return not name.endswith('.json') and set(os.listdir(name)) <= set(SAMPLE_FILES)


def _write_beside(source: Source, path: str, names: list[str]) -> None:
    description, *folders = names
    try:
        write_text(description, json.dumps(source.description(), indent=1) + '\n')
        for folder in folders:
            shutil.rmtree(folder, ignore_errors=True)
        if folders:
            write_sample_test_data(source, path, os.path.dirname(path))
    except (OSError, tf.errors.OpError) as error:
        raise InputError(f'--output_path={path}: {first_line(error)}') from error
