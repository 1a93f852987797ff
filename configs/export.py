"""The options of `export_image_classifier.py`: checkpoint, format and output.

make_config(ExportConfig, checkpoint_path='/tmp/tfmodel', format='keras', output_path='/tmp/alexnet.keras')
"""

import dataclasses
import os
import re
from typing import Any

from configs.foreign import CHANNEL_ORDERS, LAYOUTS, OUTPUTS, NetOverrides
from configs.names import EXPORT_ENDINGS
from configs.options import Options, option
from support.errors import InputError

CALIBRATION_COUNT = 100
MOST_CALIBRATION_IMAGES = 500
DEFAULT_OPSET = 17

_FROM_RUN = 'Default: as the run was trained (model.json)'
# Endings of other programs' files, which are unlikely to be meant for a folder.
_OF_OTHERS = ('.ckpt', '.h5', '.hdf5', '.json', '.mlmodel', '.mlpackage', '.pb', '.pt', '.pth', '.safetensors')


@dataclasses.dataclass(frozen=True)
class ExportOptions(Options):
    """What is exported, and as what."""

    checkpoint_path: str = option(
        '/tmp/tfmodel/',
        'A checkpoint, a .keras or .weights.h5 file, or a train_dir, whose latest one is exported.',
        path=True,
    )
    checkpoint_scope: str | None = option(
        None, 'Prefix that is removed from all names in the checkpoint, such as tower_0.'
    )
    format: str | None = option(
        None,
        "slim: a folder with a checkpoint for TF1 slim's eval_image_classifier.py; keras: a .keras file; weights.h5: a "
        '.weights.h5 file; saved_model: a folder for TensorFlow Serving and tf.saved_model.load; tflite: a .tflite '
        'file for LiteRT; onnx: an .onnx file. Default: by the ending of --output_path, else slim.',
    )
    quantize: str = option(
        'none',
        'none: float32; float16 (tflite, onnx): weights of half the size; dynamic (tflite): weights of 8 bits; int8 '
        '(tflite, onnx): weights and activations of 8 bits; qdq (onnx): int8 as pairs of QuantizeLinear and '
        'DequantizeLinear. In ONNX, int8 is for onnxruntime alone, as it uses com.microsoft:QGemm; qdq is standard '
        'ONNX, for any runtime.',
        choices=('none', 'float16', 'dynamic', 'int8', 'qdq'),
    )
    output_path: str | None = option(
        None, 'The file, or for slim and saved_model the folder, that is written.', path=True
    )
    overwrite: bool = option(False, 'Replace the file that is there, or the folder of an earlier export.')
    output: str = option(
        'logits', 'What the file gives (saved_model, tflite, onnx): logits or probabilities.', choices=OUTPUTS
    )
    layout: str | None = option(
        None, "Order of the axes of the file's images. Default: NCHW for onnx, else NHWC.", choices=LAYOUTS
    )
    channel_order: str | None = option(
        None,
        "Order of the channels of the file's images. Default: as the net's preprocessing gives them, BGR for caffe, "
        'else RGB; RGB with --includes_preprocessing.',
        choices=CHANNEL_ORDERS,
    )
    includes_preprocessing: bool = option(
        False,
        'Let the file take pixels from 0 to 255 and scale them itself; cropped and resized they come to it.',
        alias='include_preprocessing',
    )
    encoded_input: bool = option(
        False, 'saved_model: let it take encoded images (JPEG, PNG, ...) and do all of the preprocessing itself.'
    )
    inference_type: str = option(
        'int8',
        'tflite with --quantize=int8: type of its images and results.',
        choices=('int8', 'uint8', 'float32'),
    )
    calibration_images: str = option(
        str(CALIBRATION_COUNT),
        "int8 and qdq: how many images of the data set's training split the ranges are measured on; or a folder or "
        f'glob of images, of which at most {MOST_CALIBRATION_IMAGES}, evenly spread, are taken.',
        path=True,
    )
    verification_images: str | None = option(
        None,
        'Folder or glob of the images on which what was written is compared with the checkpoint. Default: 32 of the '
        "data set's evaluation split, or random ones where that is not at hand.",
        path=True,
    )
    batch_size: int | None = option(
        None,
        'saved_model, tflite, onnx: the file takes exactly this many images at a time, and all its shapes are '
        'static, which compilers for accelerators need. Default: any number.',
        lower=1,
        upper=2**13,
    )
    opset: int | None = option(
        None,
        f'onnx: version of the operators. Default: {DEFAULT_OPSET}, for programs of 2022 on.',
        lower=13,
        upper=21,
    )
    sample_test_data: int = option(
        0,
        'onnx: write this many test_data_set_<i> folders, as in the ONNX model zoo, into <name>.test_data beside the '
        'file.',
        lower=0,
        upper=100,
    )
    moving_average_decay: float | None = option(
        None, 'If given and not 0, export the moving averages as the weights.', lower=0.0, upper=1.0
    )


@dataclasses.dataclass(frozen=True)
class ExportNetOptions(NetOverrides):
    """The net, where there is no model.json, and the data set that it was trained on."""

    dataset_name: str | None = option(
        None, f'Data set of the training: a note for evaluation, and where images to compare with are. {_FROM_RUN}.'
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
                f'--output_path={options.output_path}: --format={options.format} writes a folder, but a name that ends '
                f'in {EXPORT_ENDINGS[said]} is that of a file; leave --format out, or give another name'
            )
        return config
    if said is None and name.endswith(_OF_OTHERS):
        raise InputError(
            f'--output_path={options.output_path}: no format has files of such a name; files end in {files}, and a '
            'folder needs no ending (slim, or with --format=saved_model a SavedModel)'
        )
    return dataclasses.replace(config, export=dataclasses.replace(options, format=said or 'slim'))
