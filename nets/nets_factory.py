"""The table of nets, and Keras models of them.

    model = make_model('alexnet_v2', num_classes=1001, weight_decay=4e-5)
    logits = model(images)                                               # float32 [batch, 1001]
    watched = keras.Model(model.input, get_end_points(model))            # activations by slim's names

A net is a function in its family's file; the error for an unknown name lists all names.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import keras

from nets import alexnet, alexnet_2012, caffe, cifarnet, lenet, overfeat, resnet, torchvision, vgg
from nets.building import EndPoints
from nets.inception import resnet_v2 as inception_resnet_v2
from nets.inception import v1, v2, v3, v4
from nets.mobilenet import v1 as mobilenet_v1
from nets.mobilenet import v2 as mobilenet_v2
from nets.mobilenet import v3 as mobilenet_v3
from support.errors import InputError, unknown_name


@dataclasses.dataclass(frozen=True)
class Net:
    """A net, with the size and preprocessing of its images.

    Attributes:
        build: Maps images, float32 [batch, height, width, channels], and a number of classes to logits
            and end points.
        scope: Slim's variable scope: the model's name and the prefix of its variables' names.
        image_size: Side in pixels of the images that the net was designed for.
        min_image_size: Smallest side that it accepts.
        preprocessing: Its name in `preprocessing_factory`.
        head: Scopes, inside `scope`, of the layers whose width is the number of classes: that of the logits, and that
            of the auxiliary logits.
        fully_convolutional: Whether it accepts `global_pool` and `spatial_squeeze`.
        auxiliary_weight: Factor of the loss of the auxiliary logits in training; 0 without such logits.
    """

    build: Callable[..., tuple[keras.KerasTensor, EndPoints]]
    scope: str
    image_size: int
    min_image_size: int
    preprocessing: str
    head: tuple[str, ...]
    _: dataclasses.KW_ONLY
    fully_convolutional: bool = False
    auxiliary_weight: float = 0.0


_SLIM_AUXILIARY_WEIGHT = 0.4


def _inception(
    build: Callable[..., Any], scope: str, image_size: int, smallest: int, *head: str, pools: bool = True
) -> Net:
    weight = _SLIM_AUXILIARY_WEIGHT if len(head) > 1 else 0.0
    return Net(
        build, scope, image_size, smallest, 'inception', head, fully_convolutional=pools, auxiliary_weight=weight
    )


def _resnet(version: int, depth: int) -> Net:
    # Without global_pool: it always averages over all positions, whatever the size of the images.
    build = functools.partial(resnet.resnet, version=version, depth=depth)
    return Net(build, f'resnet_v{version}_{depth}', 224, resnet.MIN_IMAGE_SIZE, 'vgg', ('logits',))


def _vgg(name: str) -> Net:
    build = functools.partial(vgg.vgg, name=name)
    return Net(build, name, 224, vgg.MIN_IMAGE_SIZE, 'vgg', ('fc8',), fully_convolutional=True)


def _mobilenet_v1(multiplier: float) -> Net:
    build = functools.partial(mobilenet_v1.mobilenet_v1, multiplier=multiplier)
    smallest, head = mobilenet_v1.MIN_IMAGE_SIZE, ('Logits/Conv2d_1c_1x1',)
    return Net(build, 'MobilenetV1', 224, smallest, 'inception', head, fully_convolutional=True)


def _mobilenet_v2(multiplier: float) -> Net:
    # Below 1, slim keeps the width of the last convolution.
    build = functools.partial(mobilenet_v2.mobilenet_v2, multiplier=multiplier, fine_grained=multiplier < 1)
    return Net(build, 'MobilenetV2', 224, 1, 'inception', ('Logits/Conv2d_1c_1x1',))


def _mobilenet_v3(name: str, scope: str = 'MobilenetV3', **options: Any) -> Net:
    build = functools.partial(mobilenet_v3.mobilenet_v3, name=name, **options)
    return Net(build, scope, 224, 1, 'inception', ('Logits/Conv2d_1c_1x1',))


_ALEXNET_BN = functools.partial(alexnet_2012.alexnet, batch_norm=True)
_CAFFENET = functools.partial(caffe.bvlc_alexnet, pool_first=True)
_TORCHVISION = torchvision.torchvision_alexnet
_FC8 = ('fc8',)

# Slim has no preprocessing for some names. For alexnet_v2, inception's is what its published recipes pass; the narrow
# mobilenet_v1 take that of mobilenet_v1; overfeat takes VGG's, with the means of the channels subtracted as its paper
# does.
# fmt: off
NETS = {
    'alexnet': Net(alexnet_2012.alexnet, 'alexnet', 224, alexnet_2012.MIN_IMAGE_SIZE, 'inception', _FC8),
    'alexnet_bn': Net(_ALEXNET_BN, 'alexnet_bn', 227, alexnet_2012.BN_MIN_IMAGE_SIZE, 'inception', _FC8),
    'alexnet_v2': Net(
        alexnet.alexnet_v2, 'alexnet_v2', 224, alexnet.MIN_IMAGE_SIZE, 'inception', _FC8, fully_convolutional=True
    ),
    'bvlc_alexnet': Net(caffe.bvlc_alexnet, 'bvlc_alexnet', 224, caffe.MIN_IMAGE_SIZE, 'caffe', _FC8),
    'caffenet': Net(_CAFFENET, 'caffenet', 224, caffe.MIN_IMAGE_SIZE, 'caffe', _FC8),
    'cifarnet': Net(cifarnet.cifarnet, 'CifarNet', 32, cifarnet.MIN_IMAGE_SIZE, 'cifarnet', ('logits',)),
    'inception_resnet_v2': _inception(
        inception_resnet_v2.inception_resnet_v2, 'InceptionResnetV2', 299, inception_resnet_v2.MIN_IMAGE_SIZE,
        'Logits/Logits', 'AuxLogits/Logits', pools=False,
    ),
    'inception_v1': _inception(v1.inception_v1, 'InceptionV1', 224, v1.MIN_IMAGE_SIZE, 'Logits/Conv2d_0c_1x1'),
    'inception_v2': _inception(v2.inception_v2, 'InceptionV2', 224, v2.MIN_IMAGE_SIZE, 'Logits/Conv2d_1c_1x1'),
    'inception_v3': _inception(
        v3.inception_v3, 'InceptionV3', 299, v3.MIN_IMAGE_SIZE, 'Logits/Conv2d_1c_1x1', 'AuxLogits/Conv2d_2b_1x1'
    ),
    'inception_v4': _inception(
        v4.inception_v4, 'InceptionV4', 299, v4.MIN_IMAGE_SIZE, 'Logits/Logits', 'AuxLogits/Aux_logits', pools=False
    ),
    'lenet': Net(lenet.lenet, 'LeNet', 28, lenet.MIN_IMAGE_SIZE, 'lenet', ('fc4',)),
    'mobilenet_edgetpu': _mobilenet_v3('mobilenet_edgetpu', 'MobilenetEdgeTPU'),
    'mobilenet_edgetpu_075': _mobilenet_v3(
        'mobilenet_edgetpu', 'MobilenetEdgeTPU', multiplier=0.75, fine_grained=True
    ),
    'mobilenet_v1': _mobilenet_v1(1.0),
    'mobilenet_v1_025': _mobilenet_v1(0.25),
    'mobilenet_v1_050': _mobilenet_v1(0.5),
    'mobilenet_v1_075': _mobilenet_v1(0.75),
    'mobilenet_v2': _mobilenet_v2(1.0),
    'mobilenet_v2_035': _mobilenet_v2(0.35),
    'mobilenet_v2_140': _mobilenet_v2(1.4),
    'mobilenet_v3_large': _mobilenet_v3('mobilenet_v3_large'),
    'mobilenet_v3_large_minimalistic': _mobilenet_v3('mobilenet_v3_large_minimalistic'),
    'mobilenet_v3_small': _mobilenet_v3('mobilenet_v3_small'),
    'mobilenet_v3_small_minimalistic': _mobilenet_v3('mobilenet_v3_small_minimalistic'),
    'overfeat': Net(
        overfeat.overfeat, 'overfeat', 231, overfeat.MIN_IMAGE_SIZE, 'vgg', _FC8, fully_convolutional=True
    ),
    **{f'resnet_v{version}_{depth}': _resnet(version, depth) for version in (1, 2) for depth in resnet.UNITS},
    'torchvision_alexnet': Net(
        _TORCHVISION, 'torchvision_alexnet', 224, torchvision.MIN_IMAGE_SIZE, 'torchvision', _FC8
    ),
    **{name: _vgg(name) for name in vgg.CONVOLUTIONS},
}
# fmt: on


def heads() -> dict[str, tuple[str, ...]]:
    """Returns the scopes of the head by the scope of the net, both as prefixes of variables' names."""
    return {net.scope: tuple(f'{net.scope}/{scope}' for scope in net.head) for net in NETS.values()}


def get_net(name: str) -> Net:
    """Returns a net by slim's name; raises InputError with all valid names if unknown."""
    if name not in NETS:
        raise unknown_name('net', name, NETS)
    return NETS[name]


def make_model(
    name: str,
    num_classes: int | None,
    *,
    image_size: int | None = None,
    channels: int = 3,
    weight_decay: float = 0.0,
    depth_multiplier: float = 1.0,
    dropout_keep_prob: float | None = None,
    mixed_precision: str = 'float32',
    global_pool: bool = False,
    spatial_squeeze: bool = True,
    seed: int = 0,
) -> keras.Model:
    """Returns a net's Keras model for square images.

    Args:
        name: Key of `NETS`.
        num_classes: Number of classes; None or 0 returns the features before the logits.
        image_size: Side of the images in pixels; None is the net's own.
        channels: Channels of the images.
        weight_decay: L2 factor of the weights that the net decays.
        depth_multiplier: Scales the width of every layer except the last.
        dropout_keep_prob: Probability, in (0, 1], that dropout keeps a value; None is the net's own.
        mixed_precision: float32; or bfloat16 or float16, for computation, while variables and logits stay
            float32.
        global_pool: Whether to average over positions before the logits (fully convolutional nets).
        spatial_squeeze: Whether to drop height and width of the logits (fully convolutional nets).
        seed: Seed of the initial weights, which depend on nothing else.

    Returns:
        A functional model from images, float32 [batch, image_size, image_size, channels], to logits, float32
        [batch, num_classes].

    Raises:
        InputError: The name is unknown, or the net does not support an argument.
    """
    net = get_net(name)
    arguments = {
        'weight_decay': weight_decay,
        'depth_multiplier': depth_multiplier,
        # Nets set the dtype and data format of every layer: a keras.json of another project has no effect.
        'dtype': mixed_precision,
        'seed': seed,
    }
    if dropout_keep_prob is not None:
        arguments['dropout_keep_prob'] = dropout_keep_prob
    if net.fully_convolutional:
        arguments |= {'global_pool': global_pool, 'spatial_squeeze': spatial_squeeze}
    elif global_pool or not spatial_squeeze:
        pooling = ', '.join(other for other, candidate in NETS.items() if candidate.fully_convolutional)
        raise InputError(
            f'{name} takes neither global_pool nor spatial_squeeze; leave --global_pool out. Nets that take them: '
            f'{pooling}'
        )
    side = image_size or net.image_size
    inputs = keras.Input((side, side, channels), dtype='float32', name='input')
    outputs, end_points = net.build(inputs, num_classes, **arguments)
    model = keras.Model(inputs, outputs, name=net.scope)
    model.end_points = end_points
    return model


def get_end_points(model: keras.Model) -> EndPoints:
    """Returns the activations of a model from `make_model` by slim's names, in slim's order.

    Raises:
        ValueError: The model was loaded from a file, which does not store them.
    """
    if not hasattr(model, 'end_points'):
        raise ValueError(f'model {model.name!r} has no end points: only those from make_model have them')
    return dict(model.end_points)
