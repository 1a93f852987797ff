"""Preprocessing by name.

    preprocessing = get_preprocessing('inception', 224)
    preprocessing = get_preprocessing('lenet', 28, channels=1, source_channels=1)    # a gray data set
    preprocessing = get_preprocessing('inception', 224, channels=1)                  # --use_grayscale

The names are slim's (preprocessing/preprocessing_factory.py), except caffe, torchvision and whole.
"""

from configs.training import AugmentOptions
from preprocessing.base import Preprocessing
from preprocessing.caffe import Caffe
from preprocessing.cifarnet import Cifarnet
from preprocessing.inception import Inception
from preprocessing.lenet import Lenet
from preprocessing.torchvision import Torchvision
from preprocessing.vgg import Vgg
from preprocessing.whole import Whole
from support.errors import InputError, unknown_name

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

# The families, and slim's names of nets that use them.
PREPROCESSINGS: dict[str, type[Preprocessing]] = {
    'caffe': Caffe,
    'cifarnet': Cifarnet,
    'inception': Inception,
    'lenet': Lenet,
    'torchvision': Torchvision,
    'vgg': Vgg,
    'whole': Whole,
    **dict.fromkeys(_INCEPTION_NETS, Inception),
    **dict.fromkeys(_VGG_NETS, Vgg),
}


def get_preprocessing(
    name: str,
    image_size: int,
    *,
    channels: int = 3,
    source_channels: int = 3,
    augment: AugmentOptions = AugmentOptions(),
) -> Preprocessing:
    """Returns the preprocessing called `name`, for square images.

    Args:
        name: A key of `PREPROCESSINGS`.
        image_size: Side of the net's input in pixels.
        channels: Channels of the net's input: 3 or 1.
        source_channels: Channels of decoded images: 3, or 1 for a gray data set if `keeps_grayscale(name)`.
        augment: Options for varying training images.

    Raises:
        InputError: The name is unknown, or the preprocessing does not support a size, channels or option.
    """
    family = _get_family(name)
    if family is not Inception:
        _refuse_options_of_inception(name, augment)
    return family(image_size, channels, source_channels, augment)


def _refuse_options_of_inception(name: str, augment: AugmentOptions) -> None:
    for option in ('color_distortion', 'use_bounding_boxes', 'min_crop_area'):
        value = getattr(augment, option)
        if value != getattr(AugmentOptions(), option):
            raise InputError(f'--{option}={value}: {name} preprocessing does not have it; inception has')


def keeps_grayscale(name: str) -> bool:
    """Returns whether a gray data set stays at one channel; otherwise it is decoded to three, as in slim.

    Raises:
        InputError: The name is unknown.
    """
    return _get_family(name).keeps_grayscale


def _get_family(name: str) -> type[Preprocessing]:
    if name not in PREPROCESSINGS:
        raise unknown_name('preprocessing', name, PREPROCESSINGS)
    return PREPROCESSINGS[name]
