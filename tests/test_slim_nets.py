"""Slim's larger nets against numbers recorded from slim, and in a training step, a checkpoint and exports."""

import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from configs import names
from engine import checkpoints
from engine.optim import losses
from nets.building import zero_weights
from nets.layers import BatchNormalization, auxiliary_logits, batch_statistics
from nets.nets_factory import NETS, get_end_points, get_net, make_model
from nets.variables import slim_variables
from tests.chains import CHAINS

TOLERANCE = 1e-4  # of the standard deviation
SLIM_NETS = [name for name in NETS if name not in CHAINS]
QUICK = ('inception_v3', 'mobilenet_v1', 'mobilenet_v3_small', 'resnet_v1_50')
AUXILIARY = ('inception_resnet_v2', 'inception_v3', 'inception_v4')


@pytest.fixture(name='golden', scope='session')
def _golden(shared_path):
    """Returns a function from the name of a net to its arrays."""

    def load(name: str) -> dict[str, np.ndarray]:
        with np.load(shared_path(f'goldens/nets/{name}.npz')) as arrays:
            return dict(arrays)

    return load


def recorded_fill(name: str, shape: tuple[int, ...], gain: float) -> np.ndarray:
    """Returns the values that variable `name` had when slim was recorded: float32 of `shape`."""
    rng, leaf = np.random.RandomState(zlib.crc32(name.encode())), name.rpartition('/')[2]
    if leaf == 'depthwise_weights':
        values = rng.normal(0, gain * np.sqrt(2.0 / (shape[0] * shape[1])), shape)
    elif leaf.endswith('weights'):
        values = rng.normal(0, gain * np.sqrt(2.0 / np.prod(shape[:-1])), shape)
    elif leaf == 'gamma':
        values = 1 + 0.1 * rng.normal(size=shape)
    elif leaf == 'moving_variance':
        values = rng.uniform(0.5, 1.5, shape)
    else:
        values = 0.1 * rng.normal(size=shape)
    return values.astype(np.float32)


def filled_model(name: str, golden: dict[str, np.ndarray]) -> keras.Model:
    with zero_weights():
        model = make_model(name, int(golden['num_classes']), weight_decay=float(golden['weight_decay']))
    for variable_name, variable in slim_variables(model).items():
        variable.assign(recorded_fill(variable_name, tuple(variable.shape), float(golden['weight_gain'])))
    return model


def images_for(model: keras.Model) -> np.ndarray:
    """Returns the images that slim was recorded on."""
    return np.random.RandomState(0).uniform(-1, 1, (2, *model.input_shape[1:])).astype(np.float32)


def within(value, expected, scale) -> bool:
    value, expected = np.asarray(value, np.float64), np.asarray(expected, np.float64)
    assert value.shape == expected.shape
    return bool(np.max(np.abs(value - expected)) <= TOLERANCE * scale)


@pytest.mark.quick(*QUICK)
@pytest.mark.parametrize('name', SLIM_NETS)
def test_net_is_slims(golden, name):
    recorded = golden(name)
    model = filled_model(name, recorded)
    variables = slim_variables(model)
    shapes = {variable: ','.join(map(str, value.shape)) for variable, value in variables.items()}
    # Keras orders the layers of branches otherwise.
    assert shapes == dict(zip(recorded['variable_names'], recorded['variable_shapes'], strict=True))
    sums = {variable: zlib.crc32(value.numpy().tobytes()) for variable, value in variables.items()}
    assert sums == dict(zip(recorded['variable_names'], recorded['variable_crc32'], strict=True))
    assert sum(int(np.prod(variable.shape)) for variable in model.trainable_variables) == recorded['num_params']
    assert {n for n, v in variables.items() if v.regularizer} == set(recorded['regularized_variables'])
    assert float(sum(model.losses)) == pytest.approx(float(recorded['regularization_loss_float64']), rel=TOLERANCE)
    is_normalising = any(isinstance(layer, BatchNormalization) for layer in model.layers)
    assert is_normalising == (name in names.BATCH_NORM_NETS)
    end_points = get_end_points(model)
    assert list(end_points) == list(recorded['endpoint_names'])
    if 'logits' not in recorded:
        return
    logits, values = keras.Model(model.input, [model.output, end_points])(images_for(model))
    assert within(logits, recorded['logits'], recorded['logits'].std())
    if 'aux_logits' in recorded:
        assert within(values['AuxLogits'], recorded['aux_logits'], recorded['aux_logits'].std())
    for i, point in enumerate(end_points):
        value, std = values[point].numpy().astype(np.float64), max(recorded['endpoint_std'][i], 1e-6)
        assert ','.join(map(str, value.shape)) == recorded['endpoint_shapes'][i]
        assert within(value.mean(), recorded['endpoint_mean'][i], std), point
        assert within(value.std(), recorded['endpoint_std'][i], std), point


@pytest.mark.quick(*QUICK)
@pytest.mark.parametrize('name', SLIM_NETS)
def test_head_is_what_depends_on_the_number_of_classes(name):
    net, shapes = get_net(name), []
    for classes in (2, 3):
        with tf.Graph().as_default():
            model = make_model(name, classes, depth_multiplier=1 / 16)
        shapes.append({variable: tuple(value.shape) for variable, value in slim_variables(model).items()})
    differing = [variable for variable, shape in shapes[0].items() if shape != shapes[1][variable]]
    assert differing == checkpoints.head_names(shapes[0])
    assert {variable.rpartition('/')[0] for variable in differing} == {f'{net.scope}/{scope}' for scope in net.head}
    assert net.auxiliary_weight == (0.4 if name in AUXILIARY else 0)


@pytest.mark.quick('inception_v3-float32')
@pytest.mark.parametrize('precision', ['float32', 'bfloat16'])
@pytest.mark.parametrize('name', ['inception_v3', 'inception_v4', 'mobilenet_v3_small', 'resnet_v2_50'])
def test_every_variable_gets_a_gradient(name, precision):
    size = 107 if 'inception' in name else 64
    model = make_model(name, 4, depth_multiplier=0.25, image_size=size, mixed_precision=precision)
    images = np.random.RandomState(0).uniform(-1, 1, (4, size, size, 3)).astype(np.float32)
    with auxiliary_logits() as collected, batch_statistics() as statistics, tf.GradientTape() as tape:
        logits = model(images, training=True)
        assert len(collected) == (1 if name in AUXILIARY else 0)
        assert all(value.dtype == tf.float32 and value.shape == (4, 4) for value in (logits, *collected))
        loss = tf.add_n([tf.reduce_sum(losses.softmax_cross_entropy(x, [0, 1, 2, 3])) for x in (logits, *collected)])
    for variable, gradient in zip(
        model.trainable_variables, tape.gradient(loss, model.trainable_variables), strict=True
    ):
        assert gradient is not None, variable.path
        assert np.all(np.isfinite(gradient)), variable.path
    normalising = [layer for layer in model.layers if isinstance(layer, BatchNormalization)]
    assert {id(one.variable) for one in statistics} == {
        id(kept) for layer in normalising for kept in (layer.moving_mean, layer.moving_variance)
    }


def test_auxiliary_logits_are_only_of_training():
    model = make_model('inception_v3', 4, depth_multiplier=0.0625, image_size=107)
    with auxiliary_logits() as collected:
        model(np.zeros((1, 107, 107, 3), np.float32))
    assert not collected
