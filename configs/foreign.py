"""Options for foreign files, which do not describe themselves as exports of this project do.

ForeignOptions(layout='NCHW', channel_order='BGR')
"""

import dataclasses

from configs.options import Options, option

LAYOUTS = ('NHWC', 'NCHW')
CHANNEL_ORDERS = ('RGB', 'BGR')
OUTPUTS = ('logits', 'probabilities')

_FROM_FILE = 'Default: as the file says, if it is an export of this project'


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
