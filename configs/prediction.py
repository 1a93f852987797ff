"""The options of `predict_image_classifier.py`: images, net and output.

make_config(PredictConfig, images=('cat.jpg', 'photos'), checkpoint_path='/tmp/tfmodel')
"""

import dataclasses

from configs.foreign import ForeignOptions, NetOverrides, temperature_option
from configs.options import Options, option


@dataclasses.dataclass(frozen=True)
class PredictOptions(Options):
    """Images and net."""

    images: tuple[str, ...] = option(
        (),
        'Image files, folders, globs, or - for standard input. Preferably list them without this flag, which splits '
        'them at commas.',
        path=True,
    )
    checkpoint_path: str = option(
        '/tmp/tfmodel/',
        'Net: a checkpoint, a train_dir (its latest checkpoint), a .keras or .weights.h5 file, a SavedModel, or a '
        '.tflite or .onnx file.',
        path=True,
    )
    moving_average_decay: float | None = option(
        None, 'Any value other than 0: use the moving averages of the weights.', lower=0.0, upper=1.0
    )
    temperature: float | None = temperature_option()
    mixed_precision: str = option(
        'float32',
        'Type in which layers compute: float32, tf32, bfloat16 or float16.',
        choices=('float32', 'tf32', 'bfloat16', 'float16'),
    )
    devices: str = option('auto', 'auto: the first GPU, otherwise the CPU; cpu; gpu.', choices=('auto', 'cpu', 'gpu'))
    batch_size: int = option(32, 'Images per batch.', lower=1, upper=2**16)
    apply_exif_orientation: bool = option(
        True,
        'Rotate images by their EXIF orientation, as viewers do. Training and evaluation do not. (slim: no)',
    )


@dataclasses.dataclass(frozen=True)
class PredictOutputOptions(Options):
    """Output."""

    top_k: int = option(5, 'Number of most likely classes to print for each image.', lower=1)
    format: str = option('text', 'Output format: text, csv or json.', choices=('text', 'csv', 'json'))
    output_path: str | None = option(
        None, 'File to write instead of standard output; written completely or not at all.', path=True
    )
    visualize: str | None = option(
        None,
        'Draw the first 64 images, as the net sees them, with their most likely classes, to a .png, .jpg, .pdf or '
        '.svg file.',
        path=True,
    )
    explain: str = option(
        'none',
        'Draw beside each image of --visualize a heat map of the evidence for its most likely class: grad_cam '
        '(regions) or saliency (pixels). Only for checkpoints, .keras and .weights.h5.',
        choices=('none', 'grad_cam', 'saliency'),
    )
    explain_layer: str | None = option(
        None, 'Feature map for --explain=grad_cam, such as conv4. Default: the last one, before pooling.'
    )


@dataclasses.dataclass(frozen=True)
class PredictConfig:
    """All that `engine.prediction.predict.predict` depends on."""

    prediction: PredictOptions = PredictOptions()
    output: PredictOutputOptions = PredictOutputOptions()
    net: NetOverrides = NetOverrides()
    foreign: ForeignOptions = ForeignOptions()
