"""The table of formats that a net can be exported to."""

import dataclasses
from collections.abc import Callable

from configs.export import ExportOptions, calibration_count
from export import onnx_file, saved_model, tflite, weights
from export.source import Source
from export.verification import compare_probabilities
from support import optional_packages
from support.errors import InputError, unknown_name

# What only files that are run have a choice of.
_OF_RUN_FILES = ('output', 'layout', 'channel_order', 'includes_preprocessing', 'verification_images', 'batch_size')


@dataclasses.dataclass(frozen=True)
class ExportFormat:
    """A format.

    Attributes:
        write: Writes a net to a path that does not exist.
        verify: Reads it back; returns what was compared, a line each; raises InputError if something differs.
        quantizations: Values of `--quantize` that it has.
        options: Other options that it has, of those that not every format has.
        layout: Layout of images where none is asked for.
        members: What a folder of it consists of, a regular expression of names.
        packages: Optional ones that it needs.
    """

    write: Callable[[Source, str], None]
    verify: Callable[[Source, str], list[str]] = compare_probabilities
    quantizations: tuple[str, ...] = ('none',)
    options: tuple[str, ...] = ()
    layout: str = 'NHWC'
    members: str = ''
    packages: tuple[str, ...] = ()

    @property
    def is_run(self) -> bool:
        """Whether it is a net that other programs run, and not weights alone: its description is written beside."""
        return bool(self.options)


FORMATS = {
    'slim': ExportFormat(weights.write_slim, weights.verify_slim, members=weights.SLIM_MEMBERS),
    'keras': ExportFormat(weights.write_keras, weights.verify_keras),
    'weights.h5': ExportFormat(weights.write_weights_h5, weights.verify_weights_h5),
    'saved_model': ExportFormat(
        saved_model.write,
        saved_model.verify,
        options=(*_OF_RUN_FILES, 'encoded_input'),
        members=saved_model.MEMBERS,
    ),
    'tflite': ExportFormat(
        tflite.write,
        quantizations=('none', 'float16', 'dynamic', 'int8'),
        options=(*_OF_RUN_FILES, 'inference_type', 'calibration_images'),
        packages=('ai_edge_litert.interpreter',),
    ),
    'onnx': ExportFormat(
        onnx_file.write,
        quantizations=('none', 'int8', 'qdq', 'float16'),
        options=(*_OF_RUN_FILES, 'calibration_images', 'opset', 'sample_test_data'),
        layout='NCHW',
        packages=('onnx', 'onnxruntime'),
    ),
}


def check_options(options: ExportOptions) -> ExportFormat:
    """Returns the format that is asked for, if it has all else that is asked for.

    Raises:
        InputError: an unknown format, or an option that it has not; or what it needs is not installed.
    """
    if options.format not in FORMATS:
        raise unknown_name('format', options.format or '', FORMATS)
    chosen = FORMATS[options.format]
    if options.quantize not in chosen.quantizations:
        raise InputError(
            f'--quantize={options.quantize}: --format={options.format} has {", ".join(chosen.quantizations)}'
        )
    for name in sorted({name for other in FORMATS.values() for name in other.options} - set(chosen.options)):
        value = getattr(options, name)
        if value != getattr(ExportOptions(), name):
            having = ', '.join(key for key, other in FORMATS.items() if name in other.options)
            raise InputError(f'--{name}={value}: --format={options.format} does not support it; only {having} does')
    for name in ('calibration_images', 'inference_type'):
        if getattr(options, name) != getattr(ExportOptions(), name) and options.quantize not in ('int8', 'qdq'):
            raise InputError(f'--{name}={getattr(options, name)} is for --quantize=int8 or qdq; leave it out')
    calibration_count(options)
    for package in chosen.packages:
        optional_packages.load(package, f'--format={options.format}')
    return chosen
