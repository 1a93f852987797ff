"""The table of formats that a net can be exported to."""

import dataclasses
from collections.abc import Callable

from configs.export import ExportOptions, calibration_count
from export import keras_file, onnx_file, saved_model, slim, tflite, weights_h5
from export.source import Source
from support.errors import InputError, unknown_name

# What only files that are run have a choice of.
_OF_RUN_FILES = ('output', 'layout', 'channel_order', 'includes_preprocessing', 'verification_images', 'batch_size')


@dataclasses.dataclass(frozen=True)
class ExportFormat:
    """A format.

    Attributes:
        ending: Of the file's name; empty for a folder.
        write: Writes a net to a path that does not exist.
        verify: Reads it back; returns what was compared, a line each; raises InputError if something differs.
        quantizations: Values of `--quantize` that it has.
        options: Other options that it has, of those that not every format has.
        layout: Layout of images where none is asked for.
        members: What a folder of it consists of, a regular expression of names.
        is_run: Whether it is a net that other programs run, and not weights alone: its description is written beside.
        check: Says before any work whether what it needs is installed; raises InputError.
    """

    ending: str
    write: Callable[[Source, str], None]
    verify: Callable[[Source, str], list[str]]
    quantizations: tuple[str, ...] = ('none',)
    options: tuple[str, ...] = ()
    layout: str = 'NHWC'
    members: str = ''
    is_run: bool = False
    check: Callable[[], None] = lambda: None


FORMATS = {
    'slim': ExportFormat(slim.ENDING, slim.write, slim.verify, members=slim.MEMBERS),
    'keras': ExportFormat(keras_file.ENDING, keras_file.write, keras_file.verify),
    'weights.h5': ExportFormat(weights_h5.ENDING, weights_h5.write, weights_h5.verify),
    'saved_model': ExportFormat(
        saved_model.ENDING,
        saved_model.write,
        saved_model.verify,
        is_run=True,
        options=(*_OF_RUN_FILES, 'encoded_input'),
        members=saved_model.MEMBERS,
    ),
    'tflite': ExportFormat(
        tflite.ENDING,
        tflite.write,
        tflite.verify,
        is_run=True,
        quantizations=('none', 'float16', 'dynamic', 'int8'),
        options=(*_OF_RUN_FILES, 'inference_type', 'calibration_images'),
        check=tflite.check,
    ),
    'onnx': ExportFormat(
        onnx_file.ENDING,
        onnx_file.write,
        onnx_file.verify,
        is_run=True,
        quantizations=('none', 'int8', 'qdq', 'float16'),
        options=(*_OF_RUN_FILES, 'calibration_images', 'opset', 'sample_test_data'),
        layout='NCHW',
        check=onnx_file.check,
    ),
}


def get_format(name: str) -> ExportFormat:
    """Looks up a format; raises InputError with the valid names if there is none."""
    if name not in FORMATS:
        raise unknown_name('format', name, FORMATS)
    return FORMATS[name]


def check_options(options: ExportOptions) -> ExportFormat:
    """Returns the format that is asked for, if it has all else that is asked for.

    Raises:
        InputError: an unknown format, or an option that it has not; or what it needs is not installed.
    """
    chosen = get_format(options.format or 'slim')
    if options.quantize not in chosen.quantizations:
        raise InputError(
            f'--quantize={options.quantize}: --format={options.format} has {", ".join(chosen.quantizations)}'
        )
    for name in sorted({name for other in FORMATS.values() for name in other.options} - set(chosen.options)):
        value = getattr(options, name)
        if value != getattr(ExportOptions(), name):
            having = ', '.join(key for key, other in FORMATS.items() if name in other.options)
            raise InputError(f'--{name}={value}: --format={options.format} has no such choice; {having} has')
    for name in ('calibration_images', 'inference_type'):
        if getattr(options, name) != getattr(ExportOptions(), name) and options.quantize not in ('int8', 'qdq'):
            raise InputError(f'--{name}={getattr(options, name)} is for --quantize=int8 or qdq; leave it out')
    calibration_count(options)
    chosen.check()
    return chosen
