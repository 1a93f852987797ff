"""The table of export formats."""

import dataclasses
from collections.abc import Callable

from configs.export import ExportOptions, calibration_count
from export import onnx_file, saved_model, tflite, weights
from export.source import Source
from export.verification import compare_probabilities
from support import optional_packages
from support.errors import InputError, unknown_name

# Options only for files that other programs run.
_OF_RUN_FILES = (
    'output',
    'temperature',
    'layout',
    'channel_order',
    'includes_preprocessing',
    'verification_images',
    'batch_size',
)


@dataclasses.dataclass(frozen=True)
class ExportFormat:
    """An export format.

    Attributes:
        write: Writes a net to a path that does not exist.
        verify: Reads the file back; returns lines that list the comparisons; raises InputError on a difference.
        quantizations: Supported values of `--quantize`.
        options: Supported options that not every format has.
        layout: Default layout of images.
        members: Regular expression of the names in an exported folder.
        packages: Optional packages that it needs.
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
        """Whether other programs run it (not weights alone): a description is then written beside it."""
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
    """Returns the requested format after checking the other options against it.

    Raises:
        InputError: The format is unknown, it lacks an option, or a package that it needs is not installed.
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
