"""The options of `predict_image_classifier.py`: which images, which net, and how its answers are written.

make_config(PredictConfig, images=('cat.jpg', 'photos'), checkpoint_path='/tmp/tfmodel')
"""

import dataclasses

from configs.foreign import ForeignOptions
from configs.options import Options, option

_FROM_RUN = 'Default: as the run was trained (model.json), or as the file says'


@dataclasses.dataclass(frozen=True)
class PredictOptions(Options):
    """What is predicted, and with what."""

    images: tuple[str, ...] = option(
        (),
        'Image files, folders, globs, or - for standard input; they are better named without a flag, which splits them '
        'at commas.',
        path=True,
    )
    checkpoint_path: str = option(
        '/tmp/tfmodel/',
        'A checkpoint, a .keras or .weights.h5 file, a train_dir, whose latest one is used, a SavedModel, or a .tflite '
        'or .onnx file.',
        path=True,
    )
    moving_average_decay: float | None = option(
        None, 'If given and not 0, use the moving averages of the weights.', lower=0.0, upper=1.0
    )
    mixed_precision: str = option(
        'float32',
        'Arithmetic of the layers: float32, tf32, bfloat16 or float16.',
        choices=('float32', 'tf32', 'bfloat16', 'float16'),
    )
    devices: str = option('auto', 'auto: the first GPU, else the CPU; cpu; gpu.', choices=('auto', 'cpu', 'gpu'))
    batch_size: int = option(32, 'Images that are prepared and classified at once.', lower=1, upper=2**16)
    apply_exif_orientation: bool = option(
        True,
        'Turn images upright by their EXIF orientation, as viewers do. Training and evaluation do not. (slim: no)',
    )


@dataclasses.dataclass(frozen=True)
class PredictOutputOptions(Options):
    """What is written of each image, and where."""

    top_k: int = option(5, 'How many classes of each image, the most likely first.', lower=1)
    format: str = option('text', 'text, csv or json.', choices=('text', 'csv', 'json'))
    output_path: str | None = option(None, 'File to write instead of standard output, whole or not at all.', path=True)
    visualize: str | None = option(
        None,
        'Draw the first 64 images, as the net sees them, with their most likely classes: a .png, .jpg, .pdf or .svg '
        'file.',
        path=True,
    )


@dataclasses.dataclass(frozen=True)
class PredictNetOptions(Options):
    """The net, where there is no model.json, and the file does not say it either."""

    model_name: str | None = option(None, f'Net. {_FROM_RUN}, else alexnet_v2.')
    preprocessing_name: str | None = option(None, f"Preprocessing. {_FROM_RUN}, else the net's own.")
    image_size: int | None = option(
        None, f"Side of the images in pixels. {_FROM_RUN}, else the net's own.", lower=1, upper=2**13
    )
    labels_offset: int | None = option(
        None, f'What was subtracted from the labels and the number of classes. {_FROM_RUN}, else 0.', lower=0
    )
    use_grayscale: bool | None = option(None, f'Whether the net takes one gray channel of images. {_FROM_RUN}.')
    depth_multiplier: float | None = option(None, f'Width of the net. {_FROM_RUN}, else 1.', above=0.0, upper=16.0)
    global_pool: bool | None = option(
        None, f'Average over the positions before the logits (alexnet_v2). {_FROM_RUN}, else not.'
    )


@dataclasses.dataclass(frozen=True)
class PredictConfig:
    """All that `engine.prediction.predict.predict` depends on."""

    prediction: PredictOptions = PredictOptions()
    output: PredictOutputOptions = PredictOutputOptions()
    net: PredictNetOptions = PredictNetOptions()
    foreign: ForeignOptions = ForeignOptions()
