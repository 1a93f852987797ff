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

_FROM_RUN = 'Default: as the run was trained (model.json), or as the file says'
_FROM_FILE = 'Default: as the file says, if it is an export of this project'


@dataclasses.dataclass(frozen=True)
class NetOverrides(Options):
    """The net, where there is no model.json and the file does not say it either, or to check against them."""

    model_name: str | None = option(None, f'Net. {_FROM_RUN}, else alexnet_v2.')
    preprocessing_name: str | None = option(None, f"Preprocessing. {_FROM_RUN}, else the net's own.")
    image_size: int | None = option(
        None,
        f"Side of the images in pixels. {_FROM_RUN}, else the net's own. (slim: --eval_image_size)",
        lower=1,
        upper=2**13,
        alias='eval_image_size',
    )
    labels_offset: int | None = option(
        None, f'Subtracted from the labels and the number of classes. {_FROM_RUN}, else 0.', lower=0
    )
    use_grayscale: bool | None = option(None, f'Whether the net takes one gray channel of images. {_FROM_RUN}.')
    channels: int | None = option(None, f'Channels of the images that the net takes. {_FROM_RUN}.', choices=(1, 3))
    depth_multiplier: float | None = option(None, f'Width of the net. {_FROM_RUN}, else 1.', above=0.0, upper=16.0)
    global_pool: bool | None = option(
        None, f'Average over the positions before the logits (alexnet_v2). {_FROM_RUN}, else not.'
    )

    def given(self) -> dict[str, Any]:
        """Returns the fields of `ModelSpec` set by flags, by name."""
        names = (field.name for field in dataclasses.fields(NetOverrides))
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


@dataclasses.dataclass(frozen=True)
class ForeignOptions(Options):
    """What a file or a checkpoint of others does not say itself: how it takes images, what its names begin with."""

    layout: str | None = option(
        None, f'Order of the axes of its images. {_FROM_FILE}, else from its shape.', choices=LAYOUTS
    )
    channel_order: str | None = option(
        None,
        f'Order of the channels of its images. {_FROM_FILE}, else as its preprocessing gives them.',
        choices=CHANNEL_ORDERS,
    )
    includes_preprocessing: bool | None = option(
        None, f'Whether it takes pixels from 0 to 255 and scales them itself. {_FROM_FILE}, else no.'
    )
    labels_path: str | None = option(
        None,
        'File with the name of each class, where neither the net nor the data set has them: one a line, id:name, or a '
        'list or dict of Python or JSON.',
        path=True,
    )
    output_name: str | None = option(
        None, 'Which output gives the scores, of a SavedModel, .tflite or .onnx file of others that has several.'
    )
    checkpoint_scope: str | None = option(
        None, 'Prefix that is removed from all names in a checkpoint, such as tower_0.'
    )
    allow_any_operator: bool = option(
        False,
        'Run a SavedModel even with operators that may do more than compute, such as reading and writing files or '
        'running Python. Only for files of people whom you would let log in.',
    )
