"""The options of `export_image_classifier.py`: checkpoint, format and output.

make_config(ExportConfig, checkpoint_path='/tmp/tfmodel', format='keras', output_path='/tmp/alexnet.keras')
"""

import dataclasses
import os
import re
from typing import Any

from configs.foreign import CHANNEL_ORDERS, LAYOUTS, OUTPUTS, NetOverrides, temperature_option
from configs.names import EXPORT_ENDINGS
from configs.options import Options, option
from support.errors import InputError

CALIBRATION_COUNT = 100
MOST_CALIBRATION_IMAGES = 500
DEFAULT_OPSET = 17

_FROM_RUN = 'Default: from model.json'
# Endings of other programs' files, which are unlikely to be meant for a folder.
_OF_OTHERS = ('.ckpt', '.h5', '.hdf5', '.json', '.mlmodel', '.mlpackage', '.pb', '.pt', '.pth', '.safetensors')


@dataclasses.dataclass(frozen=True)
class ExportOptions(Options):
    """Checkpoint, format and output."""

    checkpoint_path: str = option(
        '/tmp/tfmodel/',
        'What to export: a checkpoint, a train_dir (its latest checkpoint), or a .keras or .weights.h5 file.',
        path=True,
    )
    checkpoint_scope: str | None = option(
        None, 'Prefix to remove from all variable names in the checkpoint, such as tower_0.'
    )
    format: str | None = option(
        None,
        "slim: a folder with a checkpoint for TF1 slim's eval_image_classifier.py; keras: a .keras file; weights.h5: "
        'a .weights.h5 file; saved_model: a folder for TensorFlow Serving and tf.saved_model.load; tflite: a .tflite '
        'file for LiteRT; onnx: an .onnx file. Default: the format that the ending of --output_path names, otherwise '
        'slim.',
    )
    quantize: str = option(
        'none',
        'none: float32; float16 (tflite, onnx): weights of half the size; dynamic (tflite): 8-bit weights; int8 '
        '(tflite, onnx): 8-bit weights and activations; qdq (onnx): int8 as pairs of QuantizeLinear and '
        'DequantizeLinear. In ONNX, int8 uses com.microsoft:QGemm and needs onnxruntime; qdq is standard ONNX, for '
        'any runtime.',
        choices=('none', 'float16', 'dynamic', 'int8', 'qdq'),
    )
    output_path: str | None = option(None, 'File to write, or folder for slim and saved_model.', path=True)
    overwrite: bool = option(False, 'Replace an existing file, or the folder of an earlier export.')
    output: str = option(
        'logits', 'Output of the exported model (saved_model, tflite, onnx): logits or probabilities.', choices=OUTPUTS
    )
    layout: str | None = option(
        None, 'Axis order of the input images. Default: NCHW for onnx, otherwise NHWC.', choices=LAYOUTS
    )
    channel_order: str | None = option(
        None,
        "Channel order of the input images. Default: that of the net's preprocessing (BGR for caffe, otherwise RGB); "
        'with --includes_preprocessing, RGB.',
        choices=CHANNEL_ORDERS,
    )
    includes_preprocessing: bool = option(
        False,
        'The exported model takes cropped and resized pixels from 0 to 255 and scales them itself.',
        alias='include_preprocessing',
    )
    encoded_input: bool = option(
        False, 'saved_model: the model takes encoded images (JPEG, PNG, ...) and does all preprocessing itself.'
    )
    inference_type: str = option(
        'int8',
        'tflite with --quantize=int8: type of the input and output.',
        choices=('int8', 'uint8', 'float32'),
    )
    calibration_images: str = option(
        str(CALIBRATION_COUNT),
        "int8 and qdq: number of images of the data set's training split for calibrating the integer ranges; or a "
        f'folder or glob of images, of which at most {MOST_CALIBRATION_IMAGES}, evenly spaced, are used.',
        path=True,
    )
    verification_images: str | None = option(
        None,
        "Folder or glob of images for comparing the export with the checkpoint. Default: 32 images of the data set's "
        'evaluation split, or random images if it is not available.',
        path=True,
    )
    batch_size: int | None = option(
        None,
        'saved_model, tflite, onnx: fix the batch size, so that all shapes are static, as compilers for accelerators '
        'require. Default: any batch size.',
        lower=1,
        upper=2**13,
    )
    opset: int | None = option(
        None,
        f'onnx: operator set. Default: {DEFAULT_OPSET}, supported by programs since 2022.',
        lower=13,
        upper=21,
    )
    sample_test_data: int = option(
        0,
        'onnx: number of test_data_set_<i> folders to write into <name>.test_data beside the file, as in the ONNX '
        'model zoo.',
        lower=0,
        upper=100,
    )
    moving_average_decay: float | None = option(
        None, 'Any value other than 0: export the moving averages as the weights.', lower=0.0, upper=1.0
    )
    temperature: float | None = temperature_option()


@dataclasses.dataclass(frozen=True)
class ExportNetOptions(NetOverrides):
    """Net and data set, if there is no model.json."""

    dataset_name: str | None = option(
        None,
        'Data set used in training: recorded for evaluation, and the source of the images for comparison. '
        f'{_FROM_RUN}.',
    )
    dataset_dir: str | None = option(None, f'Folder of the data set. {_FROM_RUN}.', path=True)

    def given(self) -> dict[str, Any]:
        """Returns the fields of `ModelSpec` set by flags, by name."""
        named = {} if self.dataset_name is None else {'dataset_name': self.dataset_name}
        return {**super().given(), **named}


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """All that `export.exporting.export` depends on."""

    export: ExportOptions = ExportOptions()
    net: ExportNetOptions = ExportNetOptions()


def calibration_count(options: ExportOptions) -> int | None:
    """Returns the number of training images that `--calibration_images` asks for; None if it names a folder or glob.

    Raises:
        InputError: the number is below 1.
    """
    asked = str(options.calibration_images)
    if not re.fullmatch(r'[+-]?[0-9]+', asked):
        return None
    if int(asked) < 1:
        raise InputError(f'--calibration_images={asked}: must be at least 1, or a folder or glob of images')
    return int(asked)


def with_format(config: ExportConfig) -> ExportConfig:
    """Returns the config with its format set: the given one, else by the ending of `--output_path`, else slim.

    Raises:
        InputError: the format writes a folder but the name ends like a file, or no format matches the ending.
    """
    options = config.export
    name = os.path.basename((options.output_path or '').rstrip('/')).lower()
    said = next((key for key, ending in EXPORT_ENDINGS.items() if ending and name.endswith(ending)), None)
    files = ', '.join(ending for ending in EXPORT_ENDINGS.values() if ending)
    if options.format is not None:
        if said is not None and EXPORT_ENDINGS.get(options.format) == '':
            raise InputError(
                f'--output_path={options.output_path}: --format={options.format} writes a folder, but names that '
                f'end in {EXPORT_ENDINGS[said]} are for files; leave out --format, or choose another name'
            )
        return config
    if said is None and name.endswith(_OF_OTHERS):
        raise InputError(
            f'--output_path={options.output_path}: no format uses this ending; files end in {files}; a folder needs no '
            'ending (slim, or with --format=saved_model a SavedModel)'
        )
    return dataclasses.replace(config, export=dataclasses.replace(options, format=said or 'slim'))
