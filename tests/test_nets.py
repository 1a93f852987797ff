"""The nets against numbers recorded from slim, and what must hold for every net of the factory."""

import functools
import math
import zlib
from pathlib import Path
from typing import TypeAlias

import keras
import numpy as np
import pytest
import tensorflow as tf

from configs.devices import DeviceOptions
from engine.distributed import distribution
from nets.alexnet import alexnet_v2
from nets.building import zero_weights
from nets.layers import (
    AdaptiveAveragePooling2D,
    BatchNormalization,
    Dropout,
    FullyConnectedConv2D,
    GroupedConv2D,
    LocalResponseNormalization,
    step_randomness,
)
from nets.lenet import lenet
from nets.nets_factory import get_end_points, get_net, make_model
from nets.torchvision import torchvision_alexnet
from nets.variables import slim_variables
from support.errors import InputError
from tests.chains import CHAINS

TOLERANCE = 1e-4  # of the largest value, or of the standard deviation where that is what was recorded

# Net -> (number of classes that the recipes use, exact number of parameters).
NUM_PARAMS = {
    'alexnet': (1000, 62_378_344),
    'alexnet_bn': (1000, 62_379_752),
    'alexnet_v2': (1001, 50_308_009),
    'bvlc_alexnet': (1000, 60_965_224),
    'caffenet': (1000, 60_965_224),
    'cifarnet': (10, 1_756_426),
    'lenet': (10, 3_276_234),
    'torchvision_alexnet': (1000, 61_100_840),
}

ALEXNET_CASES: dict[str, dict] = {
    'nc1001_224': {'num_classes': 1001},
    'nc1001_224_globalpool': {'num_classes': 1001, 'global_pool': True},
    'nc10_224': {'num_classes': 10},
    'ncNone_224': {'num_classes': None},
}
SMALL_CASES = {'cifarnet': 'cifarnet', 'lenet': 'lenet', 'lenet_1ch': 'lenet'}

# An initializer, and its standard deviation where that is not of the shape.
Spread: TypeAlias = tuple[type[keras.initializers.Initializer], float]

for_every_net = pytest.mark.parametrize('name', CHAINS)


@pytest.fixture(scope='session')
def goldens(shared_path):
    """Returns a function from the name of a recorded file to its arrays."""

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(shared_path(f'goldens/{name}.npz')) as arrays:
            return dict(arrays)

    return load


@functools.cache
def recorded_fill(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Returns the values that variable `name` had when slim was recorded: float32 of `shape`."""
    rng = np.random.RandomState(zlib.crc32(name.encode()))
    if name.endswith('biases'):
        return (0.1 * rng.normal(size=shape)).astype(np.float32)
    return rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape).astype(np.float32)


def filled_model(name: str, num_classes: int | None, **kwargs) -> keras.Model:
    with zero_weights():
        model = make_model(name, num_classes, **kwargs)
    for variable_name, variable in slim_variables(model).items():
        variable.assign(recorded_fill(variable_name, tuple(variable.shape)))
    return model


def small_model(name: str, **kwargs) -> keras.Model:
    return make_model(name, 10, **{'depth_multiplier': 0.25, **kwargs})


def freeze_batch_norm(model: keras.Model) -> None:
    """Makes batch normalisation use its moving statistics in training too, so that only dropout is left of it."""
    for layer in model.layers:
        layer.trainable = not isinstance(layer, BatchNormalization)


def make_images(model: keras.Model, batch: int = 4) -> np.ndarray:
    """Returns the images that slim was recorded on: float32 [batch, height, width, channels] in [-1, 1)."""
    return np.random.RandomState(0).uniform(-1, 1, (batch, *model.input_shape[1:])).astype(np.float32)


def train_logits(model, images, seed=(1, 2), offset=0):
    """Returns the logits in training, with the dropout of the step that has this seed."""
    with step_randomness(tf.convert_to_tensor(seed), offset):
        return model(images, training=True)


def error(value, expected, scale=None) -> float:
    """Returns the largest difference relative to `scale`: by default, the largest of the expected values."""
    value, expected = np.asarray(value, np.float64), np.asarray(expected, np.float64)
    assert value.shape == expected.shape
    return np.max(np.abs(value - expected)) / (np.max(np.abs(expected)) if scale is None else scale)


def check_end_points(model: keras.Model, images: np.ndarray, recorded: dict[str, np.ndarray]) -> None:
    end_points = get_end_points(model)
    assert list(end_points) == list(recorded['endpoint_names'])
    values = keras.Model(model.input, end_points)(images)
    for i, name in enumerate(end_points):
        value, std = values[name].numpy().astype(np.float64), recorded['endpoint_std'][i]
        assert ','.join(map(str, value.shape)) == recorded['endpoint_shapes'][i]
        assert error(value.mean(), recorded['endpoint_mean'][i], std) < TOLERANCE, name
        assert error(value.std(), std, std) < TOLERANCE, name
        assert error(value.flat[:8], recorded['endpoint_first8'][i], std) < TOLERANCE, name
        assert error(value.flat[-8:], recorded['endpoint_last8'][i], std) < TOLERANCE, name


def regularization(model: keras.Model) -> dict[str, float]:
    """Returns the L2 loss of each variable that has one, by slim's name."""
    return {n: float(v.regularizer(v)) for n, v in slim_variables(model).items() if v.regularizer}


# --- Against slim: alexnet_v2 -------------------------------------------------------------------------------


def test_alexnet_variables_are_those_recorded(goldens):
    recorded = goldens('alexnet_v2_fill_check')
    variables = slim_variables(filled_model('alexnet_v2', 1001))
    assert list(variables) == list(recorded['names'])
    for i, variable in enumerate(variables.values()):
        assert ','.join(map(str, variable.shape)) == recorded['shapes'][i]
        assert zlib.crc32(variable.numpy().tobytes()) == recorded['crc32'][i]


@pytest.mark.quick('nc1001_224', 'ncNone_224')
@pytest.mark.parametrize('case', ALEXNET_CASES)
def test_alexnet_computes_what_slim_computed(goldens, case):
    recorded = goldens(f'alexnet_v2_{case}')
    model = filled_model('alexnet_v2', **ALEXNET_CASES[case])
    images = make_images(model)
    assert error(model(images), recorded['net']) < TOLERANCE
    check_end_points(model, images, recorded)


def test_alexnet_regularization_is_slims(goldens):
    recorded = goldens('alexnet_v2_regularization')
    model = filled_model('alexnet_v2', 1001, weight_decay=5e-4)
    names = [name.split('/kernel/')[0] + '/weights' for name in recorded['reg_names_wd5e-4']]
    terms = regularization(model)
    assert list(terms) == names
    np.testing.assert_allclose(list(terms.values()), recorded['reg_values_wd5e-4'], rtol=TOLERANCE)
    np.testing.assert_allclose(float(sum(model.losses)), recorded['total_wd5e-4_float64'], rtol=TOLERANCE)


# Its gradients and steps: recorded_steps.py.


# --- Against slim: the small nets ---------------------------------------------------------------------------


@pytest.mark.parametrize('case', SMALL_CASES)
def test_small_net_is_slims(goldens, case):
    recorded = goldens(f'nets/{case}')
    model = filled_model(
        SMALL_CASES[case],
        int(recorded['num_classes']),
        channels=int(recorded['input_channels']),
        weight_decay=float(recorded['weight_decay']),
    )
    variables = slim_variables(model)
    assert list(variables) == list(recorded['variable_names'])
    assert [zlib.crc32(v.numpy().tobytes()) for v in variables.values()] == list(recorded['variable_crc32'])
    assert model.count_params() == recorded['num_params']

    images = make_images(model, batch=2)
    assert error(model(images), recorded['logits']) < TOLERANCE
    check_end_points(model, images, recorded)

    terms = regularization(model)
    assert list(terms) == list(recorded['regularized_variables'])
    np.testing.assert_allclose(list(terms.values()), recorded['regularization_terms'], rtol=TOLERANCE)
    np.testing.assert_allclose(float(sum(model.losses)), recorded['regularization_loss_float64'], rtol=TOLERANCE)


# --- Every net ----------------------------------------------------------------------------------------------


def test_every_chain_has_a_row_of_parameters():
    assert NUM_PARAMS.keys() == set(CHAINS)


@for_every_net
def test_number_of_parameters(name):
    num_classes, num_params = NUM_PARAMS[name]
    with zero_weights():
        model = make_model(name, num_classes)
    assert model.count_params() == num_params


@for_every_net
def test_builds_at_its_own_size(name):
    model = small_model(name)
    side = get_net(name).image_size
    assert model.name == get_net(name).scope
    assert model.input_shape == (None, side, side, 3)
    assert model.output_shape == (None, 10)
    assert model(make_images(model, batch=2)).dtype == tf.float32
    assert all(variable.name.isidentifier() for variable in model.variables)
    assert all(name.startswith(f'{model.name}/') for name in slim_variables(model))


@for_every_net
def test_without_classes_gives_features(name):
    for num_classes in (None, 0):
        model = make_model(name, num_classes, depth_multiplier=0.25)
        _, *positions, _channels = model.output_shape
        assert positions in ([], [1, 1])
        assert list(get_end_points(model).values())[-1] is model.output


@for_every_net
def test_every_variable_learns(name):
    model = small_model(name, weight_decay=0.0)
    images, labels = make_images(model), [0, 1, 2, 3]
    with tf.GradientTape() as tape:
        loss = tf.nn.sparse_softmax_cross_entropy_with_logits(labels, train_logits(model, images))
    gradients = tape.gradient(loss, model.trainable_variables)
    for variable, gradient in zip(model.trainable_variables, gradients, strict=True):
        assert np.all(np.isfinite(gradient)), variable.path
        assert np.any(gradient), variable.path


@pytest.mark.quick('alexnet_v2')
@for_every_net
def test_the_loss_falls_in_a_few_steps(name):
    model = small_model(name, image_size=max(28, get_net(name).min_image_size), weight_decay=0.0)
    images, labels = make_images(model), [0, 1, 2, 3]
    optimizer = keras.optimizers.Adam(1e-3)
    losses = []
    for step in range(10):
        with tf.GradientTape() as tape:
            logits = train_logits(model, images, seed=(0, step))
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        losses.append(float(loss))
    assert np.mean(losses[-2:]) < 0.95 * losses[0], losses


@for_every_net
def test_dropout_is_a_function_of_the_seed(name):
    model = small_model(name)
    images = make_images(model)
    logits = train_logits(model, images).numpy()
    model(images, training=True)  # whatever is drawn between
    np.testing.assert_array_equal(logits, train_logits(model, images))
    assert error(train_logits(model, images, seed=(1, 3)), logits) > 0.01
    assert error(model(images), logits) > 0.01


@for_every_net
def test_parts_of_a_batch_drop_what_the_whole_drops(name):
    model = small_model(name)
    freeze_batch_norm(model)
    images = make_images(model)
    parts = [train_logits(model, images[i : i + 2], offset=i) for i in (0, 2)]
    assert error(tf.concat(parts, axis=0), train_logits(model, images)) < 1e-6


@for_every_net
def test_dropout_keeping_all_changes_nothing(name):
    model = small_model(name, dropout_keep_prob=1.0)
    freeze_batch_norm(model)
    images = make_images(model)
    np.testing.assert_array_equal(model(images, training=True), model(images))


@pytest.mark.quick('alexnet_v2*', 'lenet*')
@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
@for_every_net
def test_mixed_precision_keeps_variables_and_logits_in_float32(name, dtype):
    model, reference = small_model(name, mixed_precision=dtype), small_model(name)
    images = make_images(model)
    logits = train_logits(model, images)
    assert logits.dtype == tf.float32
    assert {variable.dtype for variable in model.variables} == {'float32'}
    hidden = [tensor.dtype for tensor in get_end_points(model).values() if len(tensor.shape) == 4]
    assert set(hidden) == {dtype}
    assert 0 < error(logits, train_logits(reference, images)) < 0.05


@for_every_net
def test_initial_weights_are_a_function_of_the_seed(name):
    first, again, other = (slim_variables(small_model(name, seed=seed)) for seed in (3, 3, 4))
    for variable_name, variable in first.items():
        np.testing.assert_array_equal(variable, again[variable_name])
        if variable_name.endswith('weights'):
            # Of the 2^23 values of a uniform draw, some meet.
            assert np.mean(variable.numpy() == other[variable_name].numpy()) < 1e-5
    kernels = [v.numpy().flat[:16].tobytes() for n, v in first.items() if n.endswith('weights')]
    assert len(set(kernels)) == len(kernels)


@pytest.mark.full
@for_every_net
@pytest.mark.filterwarnings('ignore:__array__ implementation:DeprecationWarning')  # Keras, saving tf.Variable
def test_saved_model_computes_the_same(name, tmp_path):
    model = small_model(name, weight_decay=4e-5, mixed_precision='bfloat16')
    model.save(tmp_path / 'model.keras')
    loaded = keras.saving.load_model(tmp_path / 'model.keras')
    images = make_images(model)
    np.testing.assert_array_equal(loaded(images), model(images))
    np.testing.assert_array_equal(train_logits(loaded, images), train_logits(model, images))
    assert regularization(loaded) == regularization(model)
    with pytest.raises(ValueError, match=r'has no end points: only those from make_model'):
        get_end_points(loaded)


@for_every_net
def test_smallest_image_size_is_the_smallest_that_works(name):
    smallest = get_net(name).min_image_size
    model = small_model(name, image_size=smallest)
    assert np.all(np.isfinite(model(make_images(model, batch=1))))
    with pytest.raises(InputError, match=f'{name} needs .* at least {smallest}x.* not {smallest - 1}x'):
        small_model(name, image_size=smallest - 1)


@for_every_net
def test_no_width_is_rounded_to_none(name):
    with pytest.raises(InputError, match=r'depth_multiplier=0\.001 leaves a layer of \d+ channels none'):
        small_model(name, depth_multiplier=0.001)


@for_every_net
def test_no_weight_decay_is_no_regularizer(name):
    assert all(variable.regularizer is None for variable in small_model(name, weight_decay=0.0).variables)


# --- What is refused ----------------------------------------------------------------------------------------


REFUSED = {
    'unknown net': (
        lambda: get_net('alexnet_v3'),
        r"unknown net 'alexnet_v3' \(did you mean 'alexnet_v2'\?\); valid: alexnet, alexnet_bn, alexnet_v2, "
        'bvlc_alexnet, caffenet, cifarnet, inception_resnet_v2, inception_v1, ',
    ),
    'unknown dtype': (
        lambda: small_model('lenet', mixed_precision='float64'),
        r"unknown dtype 'float64' \(did you mean 'float16'\?\); valid: bfloat16, float16, float32",
    ),
    'pool': (lambda: small_model('lenet', global_pool=True), 'lenet takes neither global_pool'),
    'no squeeze': (lambda: small_model('lenet', spatial_squeeze=False), 'lenet takes neither global_pool'),
    'unknown size': (
        lambda: lenet(keras.Input((None, None, 3))),
        r'lenet needs a fixed image size, not \(None, None, 3\)',
    ),
    'squeeze of many': (
        lambda: small_model('alexnet_v2', image_size=300),
        'logits at 4x4 positions .* pass global_pool=True .* or spatial_squeeze=False',
    ),
    'keep nothing': (
        lambda: small_model('lenet', dropout_keep_prob=0.0),
        r'dropout_keep_prob=0\.0: must be greater than 0 and at most 1',
    ),
}


@pytest.mark.parametrize('case', REFUSED)
def test_refused_with_a_reason(case):
    call, message = REFUSED[case]
    with pytest.raises(InputError, match=message):
        call()


# --- alexnet_v2 on other image sizes ------------------------------------------------------------------------


def test_alexnet_on_larger_images_has_more_positions():
    model = small_model('alexnet_v2', image_size=300, spatial_squeeze=False, weight_decay=0.0)
    pooled = small_model('alexnet_v2', image_size=300, global_pool=True)
    images = make_images(model, batch=1)
    logits = model(images)
    assert logits.shape == (1, 4, 4, 10)
    # The mean over the positions may be taken before or after fc8, which is linear.
    assert error(pooled(images), np.mean(logits, axis=(1, 2))) < TOLERANCE


def test_alexnet_takes_images_of_unknown_size():
    inputs = keras.Input((None, None, 3))
    logits, _ = alexnet_v2(inputs, 10, depth_multiplier=0.25, global_pool=True, spatial_squeeze=False)
    model = keras.Model(inputs, logits)
    for side in (224, 300):
        fixed = small_model('alexnet_v2', image_size=side, global_pool=True)
        images = make_images(fixed, batch=1)
        assert error(tf.squeeze(model(images), [1, 2]), fixed(images)) < TOLERANCE


# --- alexnet_bn ---------------------------------------------------------------------------------------------


def test_alexnet_bn_is_made_of():
    model = make_model('alexnet_bn', 1000, weight_decay=5e-4)
    assert sum(math.prod(variable.shape) for variable in model.trainable_variables) == 62_379_048
    shapes = {name.removeprefix('alexnet_bn/'): tensor.shape[1:] for name, tensor in get_end_points(model).items()}
    assert shapes == {
        'conv1': (55, 55, 96),
        'bn1': (55, 55, 96),
        'pool1': (27, 27, 96),
        'conv2': (27, 27, 256),
        'bn2': (27, 27, 256),
        'pool2': (13, 13, 256),
        'conv3': (13, 13, 384),
        'conv4': (13, 13, 384),
        'conv5': (13, 13, 256),
        'pool5': (6, 6, 256),
        'flatten': (9216,),
        'fc6': (4096,),
        'fc7': (4096,),
        'fc8': (1000,),
    }
    layers = ['conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'fc6', 'fc7', 'fc8']
    assert list(regularization(model)) == [f'alexnet_bn/{layer}/weights' for layer in layers]
    variables = list(slim_variables(model))
    assert variables[2:6] == [f'alexnet_bn/bn1/{name}' for name in ('gamma', 'beta', 'moving_mean', 'moving_variance')]


# --- alexnet ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(('depth_multiplier', 'unit'), [(1, 32), (1 / 2, 16), (1 / 4, 8), (1 / 8, 4), (1 / 16, 2)])
def test_alexnet_is_units_wide(depth_multiplier, unit):
    model = make_model('alexnet', 10, image_size=113, depth_multiplier=depth_multiplier)
    widths = {n.removeprefix('alexnet/'): tensor.shape[-1] / unit for n, tensor in get_end_points(model).items()}
    layers = ['conv1', 'conv2', 'conv3', 'conv4', 'conv5', 'fc6', 'fc7']
    assert [widths[layer] for layer in layers] == [3, 8, 12, 12, 8, 128, 128]
    assert get_end_points(model)['alexnet/pool5'].shape[1:3] == (2, 2)


# --- Caffe's nets -------------------------------------------------------------------------------------------


@pytest.mark.full
def test_bvlc_alexnet_computes_what_the_zoos_graph_computes():
    """The graph is in the onnx package, with sizes in place of weights."""
    onnx, onnxruntime = pytest.importorskip('onnx'), pytest.importorskip('onnxruntime')
    model = filled_model('bvlc_alexnet', 1000)
    images = 100 * make_images(model, batch=1)
    path = Path(onnx.__file__).parent / 'backend/test/data/light/light_bvlc_alexnet.onnx'
    proto = onnx.load(path)
    del proto.graph.output[:]
    proto.graph.output.append(onnx.helper.make_tensor_value_info('r24', onnx.TensorProto.FLOAT, [1, 1000]))
    sizes = [node for node in proto.graph.node if node.op_type == 'ConstantOfShape']
    for node in sizes:
        proto.graph.node.remove(node)
    for name, variable in slim_variables(model).items():
        _, layer, kind = name.split('/')
        values = _in_onnx_order(variable.numpy(), layer)
        proto.graph.initializer.append(onnx.numpy_helper.from_array(values, f'{layer}_{kind[0]}_0'))
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=['CPUExecutionProvider'])
    (expected,) = session.run(None, {'data_0': images.transpose(0, 3, 1, 2)})
    assert error(model(images), expected) < TOLERANCE


def _in_onnx_order(values: np.ndarray, layer: str) -> np.ndarray:
    if values.ndim == 4:
        return np.ascontiguousarray(values.transpose(3, 2, 0, 1))
    if layer == 'fc6' and values.ndim == 2:  # of channels, height, width
        return values.reshape(6, 6, 256, 4096).transpose(3, 2, 0, 1).reshape(4096, 9216)
    return np.ascontiguousarray(values.T)


def test_caffenet_pools_before_it_normalises():
    first, second = filled_model('caffenet', 10, depth_multiplier=0.25), small_model('bvlc_alexnet')
    second.set_weights(first.get_weights())
    images = 100 * make_images(first, batch=1)
    pooled, normalized = (model.get_layer(name) for model, name in ((first, 'pool1'), (second, 'norm1')))
    assert first.get_layer('norm1').input is pooled.output
    assert second.get_layer('pool1').input is normalized.output
    conv1 = keras.Model(first.input, first.get_layer('conv1').output)(images)
    np.testing.assert_array_equal(
        keras.Model(first.input, first.get_layer('norm1').output)(images),
        first.get_layer('norm1')(first.get_layer('pool1')(conv1)),
    )
    assert error(first(images), second(images)) > 0.001


@pytest.mark.parametrize('name', ['bvlc_alexnet', 'caffenet'])
def test_groups_share_the_filters_at_every_width(name):
    model = make_model(name, 10, image_size=64, depth_multiplier=0.26)  # conv1: 24.96
    assert get_end_points(model)[f'{name}/conv1'].shape[-1] == 24
    assert model.get_layer('conv2').kernel.shape == (5, 5, 12, 66)


# --- torchvision's net --------------------------------------------------------------------------------------


def _convolved(net: np.ndarray, layer: keras.layers.Conv2D, stride: int, padding: int) -> np.ndarray:
    """Returns ReLU of a convolution as PyTorch has it: [height, width, channels], float64."""
    kernel, bias = (value.astype(np.float64) for value in layer.get_weights())
    net = np.pad(net, [(padding, padding)] * 2 + [(0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(net, kernel.shape[:2], axis=(0, 1))[::stride, ::stride]
    return np.maximum(np.einsum('yxcij,ijcf->yxf', windows, kernel, optimize=True) + bias, 0)


def _max_pooled(net: np.ndarray) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(net, (3, 3), axis=(0, 1))[::2, ::2].max(axis=(-2, -1))


def _averaged(net: np.ndarray, count: int) -> np.ndarray:
    """Returns the means of [height, width, channels] over count x count regions as PyTorch cuts them."""

    def regions(side: int) -> list[slice]:
        return [slice(math.floor(i * side / count), math.ceil((i + 1) * side / count)) for i in range(count)]

    height, width, _ = net.shape
    return np.array([[net[rows, columns].mean(axis=(0, 1)) for columns in regions(width)] for rows in regions(height)])


@pytest.mark.parametrize(('height', 'width'), [(260, 300), (63, 224)])
def test_torchvision_alexnet_computes_what_is_written_out(height, width):
    inputs = keras.Input((height, width, 3))
    logits, end_points = torchvision_alexnet(inputs, 10, depth_multiplier=1 / 16)
    model = keras.Model(inputs, logits, name='torchvision_alexnet')
    for name, variable in slim_variables(model).items():
        variable.assign(recorded_fill(name, tuple(variable.shape)))
    images = make_images(model, batch=1)
    net = images[0].astype(np.float64)
    for layer, stride, padding in (('conv1', 4, 2), ('conv2', 1, 2), ('conv3', 1, 1), ('conv4', 1, 1), ('conv5', 1, 1)):
        net = _convolved(net, model.get_layer(layer), stride, padding)
        net = _max_pooled(net) if layer in ('conv1', 'conv2', 'conv5') else net
    net = _averaged(net, 6).ravel()
    for layer in ('fc6', 'fc7', 'fc8'):
        kernel, bias = model.get_layer(layer).get_weights()
        net = net @ kernel + bias
        net = net if layer == 'fc8' else np.maximum(net, 0)
    assert 'torchvision_alexnet/avgpool' in end_points
    assert error(model(images)[0], net) < TOLERANCE


def test_torchvision_alexnet_averages_only_what_is_not_6x6():
    assert 'torchvision_alexnet/avgpool' not in get_end_points(small_model('torchvision_alexnet'))


@pytest.mark.parametrize('shape', [(7, 8), (2, 5), (6, 13), (1, 1)])
def test_adaptive_average_is_the_mean_of_each_region(shape):
    values = np.random.RandomState(0).uniform(-1, 1, (2, *shape, 3)).astype(np.float32)
    layer = AdaptiveAveragePooling2D((6, 6))
    expected = [_averaged(value, 6) for value in values]
    assert error(layer(values), expected) < 1e-6
    assert layer.compute_output_shape((2, *shape, 3)) == (2, 6, 6, 3)


# --- Layers -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('policy', ['float32', 'mixed_bfloat16'])
def test_fully_connected_product_is_the_convolution(policy):
    rng = np.random.RandomState(0)
    images = rng.uniform(-1, 1, (2, 7, 6, 3)).astype(np.float32)
    layer = FullyConnectedConv2D(8, (5, 4), activation='relu', dtype=policy)
    plain = keras.layers.Conv2D(8, (5, 4), activation='relu', dtype=policy)
    layer.build(images.shape)
    plain.build(images.shape)
    plain.set_weights(layer.get_weights())
    expected = plain(images)
    np.testing.assert_array_equal(layer(images), expected)
    for y, x in [(0, 0), (2, 1)]:
        window = layer(images[:, y : y + 5, x : x + 4])
        assert window.shape == (2, 1, 1, 8)
        assert error(window[:, 0, 0], expected[:, y, x]) < (1e-6 if policy == 'float32' else 0.02)


def test_fully_connected_gradients_are_the_convolutions():
    images = tf.random.stateless_uniform((2, 5, 5, 3), (0, 0))
    layer, plain = FullyConnectedConv2D(8, 5), keras.layers.Conv2D(8, 5)
    gradients = []
    for one in (layer, plain):
        one.build(images.shape)
        one.set_weights(layer.get_weights())
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.square(one(images)))
        gradients.append(tape.gradient(loss, one.trainable_variables))
    for ours, expected in zip(*gradients, strict=True):
        assert error(ours, expected) < 1e-6


def test_groups_are_convolutions_side_by_side():
    images = np.random.RandomState(0).uniform(-1, 1, (2, 7, 7, 6)).astype(np.float32)
    options = {'strides': 2, 'padding': 'same'}
    layer = GroupedConv2D(8, 3, groups=2, bias_initializer='uniform', **options)
    layer.build(images.shape)
    kernel, bias = layer.get_weights()
    assert kernel.shape == (3, 3, 3, 8)
    parts = []
    for group in range(2):
        plain = keras.layers.Conv2D(4, 3, **options)
        plain.build((2, 7, 7, 3))
        filters = slice(4 * group, 4 * group + 4)
        plain.set_weights([kernel[..., filters], bias[filters]])
        parts.append(plain(images[..., 3 * group : 3 * group + 3]))
    assert error(layer(images), tf.concat(parts, axis=-1)) < 1e-6


def test_dropout_keeps_and_scales():
    layer = Dropout(0.8, name='dropout')
    kept = train_logits(layer, np.ones((64, 32, 32), np.float32)).numpy()
    assert set(np.unique(kept)) == {np.float32(0), np.float32(1.25)}
    assert abs(np.mean(kept) - 1) < 0.005
    other = train_logits(Dropout(0.8, name='other'), np.ones((64, 32, 32), np.float32)).numpy()
    assert abs(np.mean((kept > 0) == (other > 0)) - (0.8**2 + 0.2**2)) < 0.01  # independent of each other


@pytest.mark.parametrize('keep_prob', [0.5, 0.7])
def test_dropout_is_the_same_under_xla(keep_prob):
    layer, ones = Dropout(keep_prob, name='dropout'), tf.ones((8, 100))
    compiled = tf.function(lambda offset: train_logits(layer, ones[:4], offset=offset), jit_compile=True)
    np.testing.assert_array_equal(compiled(tf.constant(4)), train_logits(layer, ones)[4:])


def test_two_replicas_drop_what_one_device_drops():
    strategy = distribution.make_strategy(DeviceOptions(devices='cpu', num_clones=2))
    layer, ones = Dropout(0.5, name='dropout'), tf.ones((8, 100))

    @tf.function
    def step(seed):
        def replica():
            replica_id = tf.distribute.get_replica_context().replica_id_in_sync_group
            return train_logits(layer, ones[:4], seed, offset=4 * replica_id)

        return strategy.gather(strategy.run(replica), axis=0)

    np.testing.assert_array_equal(step(tf.constant([1, 2])), train_logits(layer, ones))


def test_local_response_normalization_is_its_formula():
    values = np.random.RandomState(0).uniform(-9, 9, (1, 2, 2, 12))
    layer = LocalResponseNormalization(radius=2, bias=2.0, alpha=0.5, beta=0.75)
    squares = np.pad(values**2, [(0, 0)] * 3 + [(2, 2)])
    sums = sum(squares[..., i : i + 12] for i in range(5))
    assert error(layer(values), values / (2.0 + 0.5 * sums) ** 0.75) < 1e-6
    assert LocalResponseNormalization.from_config(layer.get_config()).get_config() == layer.get_config()


def test_slim_names_of_nested_scopes():
    inputs = keras.Input((4, 4, 3))
    net = keras.layers.Conv2D(2, 1, use_bias=False, name='Mixed_3b.Branch_0.Conv2d_0a_1x1')(inputs)
    net = keras.layers.BatchNormalization(name='Mixed_3b.Branch_0.Conv2d_0a_1x1.BatchNorm', scale=False)(net)
    scope = 'InceptionV1/Mixed_3b/Branch_0/Conv2d_0a_1x1'
    assert list(slim_variables(keras.Model(inputs, net, name='InceptionV1'))) == [
        f'{scope}/weights',
        f'{scope}/BatchNorm/beta',
        f'{scope}/BatchNorm/moving_mean',
        f'{scope}/BatchNorm/moving_variance',
    ]


# --- Initial weights ----------------------------------------------------------------------------------------

NORMAL, TRUNCATED = keras.initializers.RandomNormal, keras.initializers.TruncatedNormal
GLOROT: Spread = (keras.initializers.GlorotUniform, 0.0)
TORCH: Spread = (keras.initializers.VarianceScaling, 0.0)


CONVOLUTIONS = ('conv1', 'conv2', 'conv3', 'conv4', 'conv5')
LAYERS = (*CONVOLUTIONS, 'fc6', 'fc7', 'fc8')
CAFFE: dict[str, tuple[Spread, float]] = {
    layer: ((NORMAL, 0.005 if layer in ('fc6', 'fc7') else 0.01), 0.0 if layer in ('conv1', 'conv3', 'fc8') else 0.1)
    for layer in LAYERS
}

# Net -> layer -> (how its kernel is drawn, initial bias).
INITIAL: dict[str, dict[str, tuple[Spread, float]]] = {
    'alexnet': dict.fromkeys(LAYERS, (GLOROT, 0.0)),
    'alexnet_bn': dict.fromkeys(LAYERS, (GLOROT, 0.0)),
    'alexnet_v2': {
        **dict.fromkeys(CONVOLUTIONS, (GLOROT, 0.1)),
        'fc6': ((TRUNCATED, 0.005), 0.1),
        'fc7': ((TRUNCATED, 0.005), 0.1),
        'fc8': ((TRUNCATED, 0.005), 0.0),
    },
    'bvlc_alexnet': CAFFE,
    'caffenet': CAFFE,
    'cifarnet': {
        'conv1': ((TRUNCATED, 0.05), 0.0),
        'conv2': ((TRUNCATED, 0.05), 0.0),
        'fc3': ((TRUNCATED, 0.04), 0.1),
        'fc4': ((TRUNCATED, 0.04), 0.1),
        'logits': ((TRUNCATED, 1 / 192), 0.0),
    },
    'lenet': dict.fromkeys(('conv1', 'conv2', 'fc3', 'fc4'), ((TRUNCATED, 0.1), 0.0)),
    'torchvision_alexnet': dict.fromkeys(LAYERS, (TORCH, 0.0)),
}


def _limit_and_deviation(spread: Spread, shape: tuple[int, ...]) -> tuple[float, float]:
    """Returns the largest value that is drawn, about, and the standard deviation."""
    kind, stddev = spread
    fan_in, fan_out = (math.prod(shape[:-2]) * channels for channels in shape[-2:])
    if kind is keras.initializers.GlorotUniform:
        limit = math.sqrt(6 / (fan_in + fan_out))
        return limit, limit / math.sqrt(3)
    if kind is keras.initializers.VarianceScaling:
        return 1 / math.sqrt(fan_in), 1 / math.sqrt(3 * fan_in)
    if kind is TRUNCATED:
        return 2 * stddev, stddev * 0.87962566  # of a standard normal that is cut at two
    return math.inf, stddev


@pytest.mark.quick('alexnet_v2')
@for_every_net
def test_initial_weights_are_drawn_as_the_nets_source_draws_them(name):
    model = make_model(name, 10)
    normalizing = [layer for layer in model.layers if isinstance(layer, BatchNormalization)]
    assert [layer.name for layer in model.layers if layer.weights and layer not in normalizing] == list(INITIAL[name])
    for layer_name, (spread, bias) in INITIAL[name].items():
        kernel, biases = (variable.numpy() for variable in model.get_layer(layer_name).weights)
        limit, std = _limit_and_deviation(spread, kernel.shape)
        largest = np.max(np.abs(kernel))
        assert 0.97 * limit < largest <= limit if math.isfinite(limit) else largest > 3 * std, layer_name
        assert np.std(kernel) == pytest.approx(std, rel=3 / math.sqrt(kernel.size)), layer_name
        assert abs(np.mean(kernel)) < 5 * std / math.sqrt(kernel.size), layer_name
        np.testing.assert_array_equal(biases, np.float32(bias))
    for layer in normalizing:
        for variable, start in zip(layer.variables, (1.0, 0.0, 0.0, 1.0), strict=True):
            np.testing.assert_array_equal(variable, np.float32(start), variable.path)


@pytest.mark.parametrize('depth_multiplier', [1 / 4, 1 / 16])
def test_narrow_nets_of_caffe_keep_the_size_of_values(depth_multiplier):
    images = 100 * make_images(small_model('bvlc_alexnet', image_size=67), batch=2)
    sizes = []
    for multiplier in (1.0, depth_multiplier):
        model = make_model('bvlc_alexnet', 10, image_size=67, depth_multiplier=multiplier)
        end_points = keras.Model(model.input, get_end_points(model))(images)
        sizes.append([float(tf.math.reduce_std(end_points[f'bvlc_alexnet/{n}'])) for n in ('conv1', 'conv5', 'fc7')])
    np.testing.assert_allclose(sizes[1], sizes[0], rtol=0.5)


@pytest.mark.parametrize('name', CHAINS)
def test_weights_that_will_be_read_begin_with_zeros(name):
    with zero_weights():
        model = make_model(name, 3, depth_multiplier=1 / 16)
    drawn = make_model(name, 3, depth_multiplier=1 / 16)
    for variable, other in zip(model.trainable_variables, drawn.trainable_variables, strict=True):
        if variable.path.endswith('kernel'):
            assert not np.any(variable)
            assert np.any(other)
