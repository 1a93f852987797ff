"""The table of nets, and Keras models of them.

    model = make_model('alexnet_v2', num_classes=1001, weight_decay=4e-5)
    logits = model(images)                                               # float32 [batch, 1001]
    watched = keras.Model(model.input, get_end_points(model))            # activations by slim's names

A net is a function in its family's file; the error for an unknown name lists all names.
"""

import dataclasses
import functools
from collections.abc import Callable

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
        fully_convolutional: Whether it accepts `global_pool`, `spatial_squeeze` and images of any larger size.
    """

    build: Callable[..., tuple[keras.KerasTensor, EndPoints]]
    scope: str
    image_size: int
    min_image_size: int
    preprocessing: str
    fully_convolutional: bool = False


_ALEXNET_BN = functools.partial(alexnet_2012.alexnet, batch_norm=True)
_CAFFENET = functools.partial(caffe.bvlc_alexnet, pool_first=True)
_TORCHVISION = torchvision.torchvision_alexnet

NETS = {
    'alexnet': Net(alexnet_2012.alexnet, 'alexnet', 224, alexnet_2012.MIN_IMAGE_SIZE, 'inception'),
    'alexnet_bn': Net(_ALEXNET_BN, 'alexnet_bn', 227, alexnet_2012.BN_MIN_IMAGE_SIZE, 'inception'),
    # Slim has no preprocessing for alexnet_v2; inception's is what its published recipes pass.
    'alexnet_v2': Net(
        alexnet.alexnet_v2, 'alexnet_v2', 224, alexnet.MIN_IMAGE_SIZE, 'inception', fully_convolutional=True
    ),
    'bvlc_alexnet': Net(caffe.bvlc_alexnet, 'bvlc_alexnet', 224, caffe.MIN_IMAGE_SIZE, 'caffe'),
    'caffenet': Net(_CAFFENET, 'caffenet', 224, caffe.MIN_IMAGE_SIZE, 'caffe'),
    'cifarnet': Net(cifarnet.cifarnet, 'CifarNet', 32, cifarnet.MIN_IMAGE_SIZE, 'cifarnet'),
    'lenet': Net(lenet.lenet, 'LeNet', 28, lenet.MIN_IMAGE_SIZE, 'lenet'),
    'torchvision_alexnet': Net(_TORCHVISION, 'torchvision_alexnet', 224, torchvision.MIN_IMAGE_SIZE, 'torchvision'),
}
NETS |= {
    f'resnet_v{version}_{depth}': Net(
        functools.partial(resnet.resnet, version=version, depth=depth),
        f'resnet_v{version}_{depth}',
        224,
        resnet.MIN_IMAGE_SIZE,
        'vgg',
        fully_convolutional=True,
    )
    for version in (1, 2)
    for depth in resnet.UNITS
}
NETS |= {
    name: Net(functools.partial(vgg.vgg, name=name), name, 224, vgg.MIN_IMAGE_SIZE, 'vgg', fully_convolutional=True)
    for name in vgg.CONVOLUTIONS
}
NETS['overfeat'] = Net(overfeat.overfeat, 'overfeat', 231, overfeat.MIN_IMAGE_SIZE, 'vgg', fully_convolutional=True)
NETS['inception_v3'] = Net(
    v3.inception_v3, 'InceptionV3', 299, v3.MIN_IMAGE_SIZE, 'inception', fully_convolutional=True
)
NETS['inception_v1'] = Net(
    v1.inception_v1, 'InceptionV1', 224, v1.MIN_IMAGE_SIZE, 'inception', fully_convolutional=True
)
NETS['inception_v2'] = Net(
    v2.inception_v2, 'InceptionV2', 224, v2.MIN_IMAGE_SIZE, 'inception', fully_convolutional=True
)
NETS['inception_v4'] = Net(v4.inception_v4, 'InceptionV4', 299, v4.MIN_IMAGE_SIZE, 'inception')
NETS['inception_resnet_v2'] = Net(
    inception_resnet_v2.inception_resnet_v2, 'InceptionResnetV2', 299, inception_resnet_v2.MIN_IMAGE_SIZE, 'inception'
)
_NARROW = {'_075': 0.75, '_050': 0.5, '_025': 0.25}
NETS |= {
    f'mobilenet_v1{suffix}': Net(
        functools.partial(mobilenet_v1.mobilenet_v1, multiplier=multiplier), 'MobilenetV1', 224, 1, 'inception', True
    )
    for suffix, multiplier in _NARROW.items()
}
NETS |= {
    f'mobilenet_v2{suffix}': Net(
        functools.partial(mobilenet_v2.mobilenet_v2, multiplier=multiplier, fine_grained=multiplier < 1),
        'MobilenetV2',
        224,
        1,
        'inception',
    )
    for suffix, multiplier in {'': 1.0, '_140': 1.4, '_035': 0.35}.items()
}
NETS |= {
    name: Net(
        functools.partial(mobilenet_v3.mobilenet_v3, name=name),
        'MobilenetEdgeTPU' if name == 'mobilenet_edgetpu' else 'MobilenetV3',
        224,
        1,
        'inception',
    )
    for name in mobilenet_v3.TABLES
}
NETS['mobilenet_edgetpu_075'] = Net(
    functools.partial(mobilenet_v3.mobilenet_v3, name='mobilenet_edgetpu', multiplier=0.75, fine_grained=True),
    'MobilenetEdgeTPU',
    224,
    1,
    'inception',
)
NETS['mobilenet_v1'] = Net(mobilenet_v1.mobilenet_v1, 'MobilenetV1', 224, 1, 'inception', fully_convolutional=True)


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
            f'{name} is not fully convolutional: it has neither global_pool nor spatial_squeeze, which {pooling} has; '
            'leave --global_pool out'
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
