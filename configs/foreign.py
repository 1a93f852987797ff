"""What a file does not say of itself: options of the scripts that run exports of this project, and files of others.

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
    """How a .tflite or .onnx file or a SavedModel takes its images, where it does not say so itself."""

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
        'Text file with the name of each class, one a line, where neither the file nor the data set has them.',
        path=True,
    )
