"""The convolutions of `nets.layers.convolutions`, beside direct ones."""

import numpy as np
import pytest
import tensorflow as tf

from configs.options import make_config
from configs.training import TrainConfig
from engine.distributed import distribution
from nets import nets_factory
from nets.layers import Conv2D, GroupedConv2D, fast_convolutions, winograd
from nets.layers import convolutions as fast
from support.processor import Processor, this_processor
from tests.chains import CHAINS


def value_and_gradients(convolve, inputs, kernel, upstream):
    """Returns the outputs, and the gradients for inputs and kernel, as arrays."""

    @tf.function
    def compute(inputs, kernel, upstream):
        with tf.GradientTape() as tape:
            tape.watch([inputs, kernel])
            outputs = convolve(inputs, kernel)
        return outputs, *tape.gradient(outputs, [inputs, kernel], upstream)

    return [value.numpy() for value in compute(inputs, kernel, upstream)]


def direct(inputs, kernel):
    return tf.nn.conv2d(inputs, kernel, 1, 'SAME')


@pytest.fixture
def calls(monkeypatch):
    """Notes the convolutions that are made in another way."""
    made = []

    def note(module, name):
        convolve = getattr(module, name)

        def convolve_and_note(*arguments):
            made.append(name)
            return convolve(*arguments)

        monkeypatch.setattr(module, name, convolve_and_note)

    note(winograd, 'convolve')
    note(fast, 'convolve_with_products')
    return made


# Of the largest value. Of 5x5, measured: 0.7e-5 with oneDNN's products, 1.0e-5 with TensorFlow's own.
BOUNDS = {3: 5e-6, 5: 1.5e-5}


@pytest.mark.quick('*-shape0', '*-shape4')
# Whole tiles, parts of them, images smaller than one, and of other widths than heights.
@pytest.mark.parametrize(
    'shape', [(2, 12, 12, 64, 96), (3, 13, 7, 64, 64), (4, 3, 3, 96, 64), (1, 5, 6, 64, 64), (2, 1, 9, 3, 5)]
)
@pytest.mark.parametrize('bytes_of_part', [2**26, 2**18], ids=['whole', 'in parts'])
@pytest.mark.parametrize('side', winograd.FILTERS)
def test_winograds_is_a_convolution(shape, side, bytes_of_part, monkeypatch):
    monkeypatch.setattr(winograd, '_BYTES_OF_PART', bytes_of_part)
    batch, height, width, channels, filters = shape
    random = np.random.default_rng(0)
    sizes = (batch, height, width, channels), (side, side, channels, filters), (batch, height, width, filters)
    arguments = [random.standard_normal(size) for size in sizes]
    expected = value_and_gradients(direct, *(tf.constant(value) for value in arguments))  # in float64
    found = value_and_gradients(winograd.convolve, *(tf.constant(value, tf.float32) for value in arguments))
    for value, exact in zip(found, expected, strict=True):
        assert value.dtype == np.float32
        # A direct convolution in float32 is within 1e-6.
        np.testing.assert_allclose(value, exact, rtol=0, atol=BOUNDS[side] * np.abs(exact).max())


def test_takes_batches_of_unknown_size():
    shapes = [None, 6, 6, 8], [3, 3, 8, 4]
    convolve = tf.function(winograd.convolve, input_signature=[tf.TensorSpec(shape) for shape in shapes])
    images, kernel = tf.random.stateless_normal([3, 6, 6, 8], [0, 1]), tf.random.stateless_normal([3, 3, 8, 4], [0, 2])
    np.testing.assert_allclose(convolve(images, kernel), direct(images, kernel), atol=1e-4)


@pytest.mark.skipif(
    not this_processor().choices.bfloat16_products,
    reason='without oneDNN and AVX-512 TensorFlow adds up bfloat16 in bfloat16, and the products are not taken',
)
@pytest.mark.parametrize('shape', [(2, 12, 12, 64, 96), (3, 5, 7, 64, 64), (4, 2, 3, 96, 64)])
def test_products_have_the_gradients_of_a_convolution(shape):
    batch, height, width, channels, filters = shape
    random = np.random.default_rng(0)
    sizes = (batch, height, width, channels), (3, 3, channels, filters), (batch, height, width, filters)
    arguments = [tf.constant(random.standard_normal(size), tf.bfloat16) for size in sizes]
    expected = value_and_gradients(direct, *(tf.cast(value, tf.float64) for value in arguments))
    found = value_and_gradients(fast.convolve_with_products, *arguments)
    for value, exact in zip(found, expected, strict=True):
        assert value.dtype == tf.bfloat16.as_numpy_dtype
        np.testing.assert_allclose(value.astype(np.float64), exact, rtol=2**-7, atol=2**-9 * np.abs(exact).max())


@pytest.mark.parametrize(
    ('make_layer', 'shape', 'number'),
    [
        (lambda: Conv2D(64, 3, padding='same'), (12, 12, 64), 1),
        (lambda: GroupedConv2D(128, 3, groups=2, padding='same'), (12, 12, 128), 2),
        (lambda: Conv2D(64, 3, padding='same'), (3, 3, 64), 1),
        (lambda: Conv2D(64, 3, padding='same'), (2, 2, 64), 0),  # 4 pixels of a tile with 36 places
        (lambda: Conv2D(64, 3, padding='valid'), (12, 12, 64), 0),
        (lambda: Conv2D(64, 3, strides=2, padding='same'), (12, 12, 64), 0),
        (lambda: Conv2D(64, 3, dilation_rate=2, padding='same'), (12, 12, 64), 0),
        (lambda: Conv2D(64, 5, padding='same'), (12, 12, 64), 1),
        (lambda: Conv2D(64, 7, padding='same'), (12, 12, 64), 0),
        (lambda: Conv2D(64, (3, 5), padding='same'), (12, 12, 64), 0),
        (lambda: Conv2D(32, 3, padding='same'), (12, 12, 64), 0),
        (lambda: Conv2D(64, 3, padding='same'), (12, 12, 3), 0),
        (lambda: Conv2D(64, 3, padding='same', dtype='mixed_bfloat16'), (12, 12, 64), 1),
        (lambda: Conv2D(64, 3, padding='same', dtype='mixed_bfloat16'), (2, 2, 64), 1),
        (lambda: Conv2D(64, 5, padding='same', dtype='mixed_bfloat16'), (12, 12, 64), 0),
        (lambda: Conv2D(64, 3, padding='same', dtype='mixed_float16'), (12, 12, 64), 0),
    ],
)
def test_takes_what_it_can_and_what_pays(calls, make_layer, shape, number, monkeypatch):
    monkeypatch.setattr(fast, 'this_processor', lambda: Processor('AMX', onednn=True))  # whatever runs this test
    layer, images = make_layer(), tf.random.stateless_normal([2, *shape], [0, 1])
    expected = layer(images)
    with fast_convolutions(False):
        layer(images)
    assert not calls  # nowhere but where it is asked for
    with fast_convolutions():
        found = layer(images)
    assert len(calls) == number
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


# conv4 and conv5 of Caffe's have two groups; so has conv2, of 48 channels.
NUM_FAST = {
    **dict.fromkeys(('alexnet', 'alexnet_bn', 'alexnet_v2', 'torchvision_alexnet'), 4),
    **dict.fromkeys(('bvlc_alexnet', 'caffenet'), 5),
    **dict.fromkeys(('cifarnet', 'lenet'), 0),
}


@pytest.mark.quick('alexnet_v2', 'cifarnet')
@pytest.mark.parametrize('name', CHAINS)
def test_nets_convolve_so(calls, name):
    model = nets_factory.make_model(name, num_classes=3)
    images = tf.random.stateless_uniform([2, *model.input_shape[1:]], [0, 1], -1, 1)
    expected = model(images)
    assert not calls
    with fast_convolutions():
        found = model(images)
    assert len(calls) == NUM_FAST[name]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
    ('option', 'on_gpus', 'used'),
    [('auto', False, True), ('auto', True, False), ('on', True, True), ('off', False, False)],
)
def test_option(monkeypatch, option, on_gpus, used):
    strategy = tf.distribute.OneDeviceStrategy('CPU:0')
    monkeypatch.setattr(distribution, 'is_on_gpus', lambda strategy: on_gpus)
    config = make_config(TrainConfig, train_dir='unused', fast_convolutions=option)
    assert distribution.use_fast_convolutions(config.devices, strategy) is used
