"""Preprocessing by name.

preprocessing = get_preprocessing('inception', 224)
preprocessing = get_preprocessing('lenet', 28, channels=1, source_channels=1)    # a gray data set
preprocessing = get_preprocessing('inception', 224, channels=1)                  # --use_grayscale
"""

from configs.errors import InputError, unknown_name
from preprocessing.base import Preprocessing
from preprocessing.cifarnet import Cifarnet
from preprocessing.inception import Inception
from preprocessing.lenet import Lenet
from preprocessing.vgg import Vgg

# fmt: off
_INCEPTION_NETS = (
    'inception_v1', 'inception_v2', 'inception_v3', 'inception_v4', 'inception_resnet_v2',
    'mobilenet_v1', 'mobilenet_v2', 'mobilenet_v2_035', 'mobilenet_v2_140',
    'mobilenet_v3_small', 'mobilenet_v3_small_minimalistic',
    'mobilenet_v3_large', 'mobilenet_v3_large_minimalistic',
    'mobilenet_edgetpu', 'mobilenet_edgetpu_075',
    'nasnet_mobile', 'nasnet_large', 'pnasnet_mobile', 'pnasnet_large',
)
_VGG_NETS = (
    'vgg_a', 'vgg_16', 'vgg_19',
    'resnet_v1_50', 'resnet_v1_101', 'resnet_v1_152', 'resnet_v1_200',
    'resnet_v2_50', 'resnet_v2_101', 'resnet_v2_152', 'resnet_v2_200',
)
# fmt: on

# The families, and the names of nets that slim accepts for them.
PREPROCESSINGS: dict[str, type[Preprocessing]] = {
    'cifarnet': Cifarnet,
    'inception': Inception,
    'lenet': Lenet,
    'vgg': Vgg,
    **dict.fromkeys(_INCEPTION_NETS, Inception),
    **dict.fromkeys(_VGG_NETS, Vgg),
}


def get_preprocessing(
    name: str,
    image_size: int,
    *,
    channels: int = 3,
    source_channels: int = 3,
    color_distortion: str = 'fast',
    use_bounding_boxes: bool = False,
) -> Preprocessing:
    """Returns the preprocessing called `name`, for square images.

    Args:
        name: a key of `PREPROCESSINGS`.
        image_size: side of the net's input in pixels.
        channels: what the net is given: 3, or 1.
        source_channels: what images are decoded to: 3, or 1 for a gray data set if `keeps_grayscale(name)`.
        color_distortion: 'fast' or 'full'; inception only.
        use_bounding_boxes: whether training crops follow the record's boxes; inception only.

    Raises:
        InputError: unknown name, or a size, channels or option that this preprocessing does not have.
    """
    family = _get_family(name)
    if family is Inception:
        return Inception(image_size, channels, source_channels, color_distortion, use_bounding_boxes)
    if color_distortion != 'fast':
        raise InputError(
            f'--color_distortion={color_distortion}: {name} preprocessing has none; inception has'
        )
    if use_bounding_boxes:
        raise InputError(f'--use_bounding_boxes: {name} preprocessing does not use boxes; inception does')
    return family(image_size, channels, source_channels)


def keeps_grayscale(name: str) -> bool:
    """Whether a gray data set stays at one channel; otherwise it is decoded to three, as in slim.

    Raises:
        InputError: unknown name.
    """
    return _get_family(name).keeps_grayscale


def _get_family(name: str) -> type[Preprocessing]:
    if name not in PREPROCESSINGS:
        raise unknown_name('preprocessing', name, PREPROCESSINGS)
    return PREPROCESSINGS[name]
