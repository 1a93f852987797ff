"""The road of an export: find the format, read the checkpoint, write beside, read back and compare, rename.

export(make_config(ExportConfig, checkpoint_path='/tmp/tfmodel', format='keras', output_path='/tmp/net.keras'))
"""

import tensorflow as tf

from configs.errors import InputError, first_line
from configs.export import ExportConfig
from export.export_factory import get_format
from export.output import check_output, written_beside
from export.source import load_source


def export(config: ExportConfig) -> str:
    """Exports a checkpoint as the config says, and prints what was compared.

    Returns:
        The path that was written.

    Raises:
        InputError: whatever the user can put right; nothing is written then.
    """
    options = config.export
    chosen = get_format(options.format)
    path = check_output(options.output_path, chosen.ending, options.overwrite)
    source = load_source(config)
    with written_beside(path) as part:
        try:
            chosen.write(source, part)
        except tf.errors.OpError as error:
            raise InputError(f'--output_path={path}: {first_line(error)}') from error
        lines = chosen.verify(source, part)
    kind = 'moving averages' if source.averaged else 'weights'
    print(f'exported the {kind} of {source.checkpoint}, step {source.step}, to {path}')
    for line in lines:
        print(line)
    return path
