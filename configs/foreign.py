"""Options for properties that a checkpoint or file does not record, or that override it.

NetOverrides(model_name='cifarnet', image_size=32).given()     # {'model_name': 'cifarnet', 'image_size': 32}
ForeignOptions(layout='NCHW', channel_order='BGR')
"""

import dataclasses
from typing import Any

from configs.options import Options, option

LAYOUTS = ('NHWC', 'NCHW')
CHANNEL_ORDERS = ('RGB', 'BGR')
OUTPUTS = ('logits', 'probabilities')
LOWEST_TEMPERATURE, HIGHEST_TEMPERATURE = 0.01, 100.0

_FROM_RUN = 'Default: from model.json or the file'
_FROM_FILE = 'Default: from the file, if this project exported it'


def temperature_option() -> Any:
    """Declares `--temperature`, which several scripts have."""
    return option(
        None,
        'Divide the logits by this number to compute probabilities; 1 leaves them uncalibrated. Default: the number '
        'that --fit_temperature of eval_image_classifier.py stored for these weights, otherwise 1.',
        lower=LOWEST_TEMPERATURE,
        upper=HIGHEST_TEMPERATURE,
    )


@dataclasses.dataclass(frozen=True)
class NetOverrides(Options):
    """Net, if neither model.json nor the file describes it, or to check it against them."""

    model_name: str | None = option(None, f'Net. {_FROM_RUN}, otherwise alexnet_v2.')
    preprocessing_name: str | None = option(None, f"Preprocessing. {_FROM_RUN}, otherwise the net's own.")
    image_size: int | None = option(
        None,
        f"Side of the images in pixels. {_FROM_RUN}, otherwise the net's own. (slim: --eval_image_size)",
        lower=1,
        upper=2**13,
        alias='eval_image_size',
    )
    labels_offset: int | None = option(
        None, f'Number subtracted from the labels and from the number of classes. {_FROM_RUN}, otherwise 0.', lower=0
    )
    use_grayscale: bool | None = option(None, f'Whether the net takes one gray channel. {_FROM_RUN}.')
    channels: int | None = option(None, f'Channels of the input images. {_FROM_RUN}.', choices=(1, 3))
    depth_multiplier: float | None = option(None, f'Width of the net. {_FROM_RUN}, otherwise 1.', above=0.0, upper=16.0)
    global_pool: bool | None = option(
        None, f'Average over the positions before the logits (alexnet_v2). {_FROM_RUN}, otherwise no.'
    )

    def given(self) -> dict[str, Any]:
        """Returns the fields of `ModelSpec` set by flags, by name."""
        names = (field.name for field in dataclasses.fields(NetOverrides))
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


@dataclasses.dataclass(frozen=True)
class ForeignOptions(Options):
    """Foreign files and checkpoints, which do not describe themselves."""

    layout: str | None = option(
        None, f'Axis order of the input images. {_FROM_FILE}, otherwise derived from the input shape.', choices=LAYOUTS
    )
    channel_order: str | None = option(
        None,
        f'Channel order of the input images. {_FROM_FILE}, otherwise that of the preprocessing.',
        choices=CHANNEL_ORDERS,
    )
    includes_preprocessing: bool | None = option(
        None, f'Whether the model takes pixels from 0 to 255 and scales them itself. {_FROM_FILE}, otherwise no.'
    )
    labels_path: str | None = option(
        None,
        'File with class names, if neither the net nor the data set has them: one per line, id:name, or a Python or '
        'JSON list or dict.',
        path=True,
    )
    output_name: str | None = option(
        None, 'Output with the scores, if a foreign SavedModel, .tflite or .onnx file has several.'
    )
    checkpoint_scope: str | None = option(
        None, 'Prefix to remove from all variable names in a checkpoint, such as tower_0.'
    )
    allow_any_operator: bool = option(
        False,
        'Run a SavedModel even if its operators may do more than compute, such as read and write files or run '
        'Python. Use it only for files from people you trust with a login.',
    )
