"""The nets as ordinary Keras models, outside of this project's loop: fit, own loops, layers around them, files."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from configs.devices import DeviceOptions
from configs.export import ExportConfig
from configs.options import make_config
from engine.distributed import distribution
from export import exporting
from nets.nets_factory import get_net, make_model
from tests.chains import CHAINS
from tests.scripts import run_python

# Keras 3.15, saving a tf.Variable with NumPy 2 (2026-11-21).
pytestmark = pytest.mark.filterwarnings('ignore:__array__ implementation:DeprecationWarning')

CLASSES, COUNT = 4, 8
# Between them: dropout, batch normalisation, response normalisation, groups, convolutions as products, regions.
KINDS = ['alexnet_bn', 'alexnet_v2', 'bvlc_alexnet', 'torchvision_alexnet']


def tiny_model(name: str, **options) -> keras.Model:
    side = get_net(name).min_image_size
    return make_model(name, CLASSES, image_size=side, depth_multiplier=1 / 16, **options)


def examples(model: keras.Model) -> tuple[np.ndarray, np.ndarray]:
    images = np.random.RandomState(0).uniform(-1, 1, (COUNT, *model.input_shape[1:])).astype(np.float32)
    return images, np.arange(COUNT) % CLASSES


def compile_it(model: keras.Model, **options) -> keras.Model:
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, metrics=['accuracy'], **options)
    return model


def fit(model: keras.Model, epochs: int = 1) -> list[float]:
    """Trains on the examples, in two batches that are not of one size; returns the losses."""
    return model.fit(*examples(model), epochs=epochs, batch_size=5, shuffle=False, verbose=0).history['loss']


@pytest.mark.full
@pytest.mark.parametrize('name', CHAINS)
def test_fit_changes_every_variable(name):
    keras.utils.set_random_seed(1)
    model = compile_it(tiny_model(name, weight_decay=1e-3))
    before = [variable.numpy() for variable in model.variables]
    assert np.isfinite(fit(model)).all()
    for variable, value in zip(model.variables, before, strict=True):
        assert np.any(variable.numpy() != value), variable.path
    images, labels = examples(model)
    loss, _ = model.evaluate(images, labels, verbose=0)
    cross_entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)(
        labels, model.predict(images, verbose=0)
    )
    assert loss == pytest.approx(float(cross_entropy + sum(model.losses)), rel=1e-5)


def test_fit_learns():
    keras.utils.set_random_seed(1)
    losses = fit(compile_it(tiny_model('lenet')), epochs=60)
    assert losses[-1] < 0.9 * losses[0], losses


@pytest.mark.full
def test_fit_is_repeated_by_the_seed():
    losses = []
    for seed in (1, 1, 2):
        keras.utils.set_random_seed(seed)
        losses.append(fit(compile_it(tiny_model('lenet'))))  # whose initial weights are the same
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.full
@pytest.mark.parametrize('name', ['alexnet_bn', 'bvlc_alexnet'])
def test_fit_under_xla(name):
    losses = [fit(compile_it(tiny_model(name, dropout_keep_prob=1.0), jit_compile=jit)) for jit in (False, True)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


@pytest.mark.full
def test_fit_with_two_replicas():
    strategy = distribution.make_strategy(DeviceOptions(devices='cpu', num_clones=2))
    with strategy.scope():
        model = compile_it(tiny_model('alexnet_bn'))
    before = [variable.numpy() for variable in model.non_trainable_variables]
    dataset = tf.data.Dataset.from_tensor_slices(examples(model)).batch(4)
    assert np.isfinite(model.fit(dataset, shuffle=False, verbose=0).history['loss']).all()
    for variable, value in zip(model.non_trainable_variables, before, strict=True):
        assert np.any(variable.numpy() != value), variable.path


def test_an_own_loop_drops_anew_in_each_call():
    model = tiny_model('lenet')
    images, labels = examples(model)
    optimizer = keras.optimizers.SGD(0.01)

    @tf.function(autograph=False)
    def step() -> tf.Tensor:
        with tf.GradientTape() as tape:
            logits = model(images, training=True)
            loss = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits))
        optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
        return logits

    kernel = model.layers[1].kernel.numpy()
    step()
    assert np.any(model.layers[1].kernel.numpy() != kernel)
    optimizer.learning_rate = 0.0
    first, second = step().numpy(), step().numpy()
    assert np.abs(first - second).max() > 1e-4
    eager = [model(images, training=True).numpy() for _ in range(2)]
    assert np.abs(eager[0] - eager[1]).max() > 1e-4
    np.testing.assert_array_equal(model(images), model(images, training=False))


def test_the_share_that_is_kept_is_the_one_asked_for():
    model = tiny_model('lenet', dropout_keep_prob=0.25)
    dropout = model.get_layer('dropout3')
    kept = dropout(np.ones((200, 500), np.float32), training=True).numpy()
    assert set(np.unique(kept)) == {0.0, 4.0}
    assert np.mean(kept > 0) == pytest.approx(0.25, abs=0.01)


def test_dropout_adds_no_variable():
    assert [variable.name for variable in tiny_model('lenet').variables] == ['kernel', 'bias'] * 4


@pytest.mark.full
@pytest.mark.parametrize('name', KINDS)
def test_layers_around_clones_and_files_train(name, tmp_path):
    net = tiny_model(name)
    head = keras.layers.Dense(CLASSES, name='head')
    around = keras.Sequential([keras.Input(net.input_shape[1:]), keras.layers.Rescaling(0.5), net, head])
    for model in (compile_it(around), compile_it(keras.models.clone_model(net))):
        assert np.isfinite(fit(model)).all()
        path = tmp_path / f'{model.name}.keras'
        model.save(path)
        loaded = keras.saving.load_model(path)
        images, _ = examples(model)
        np.testing.assert_array_equal(loaded.predict(images, verbose=0), model.predict(images, verbose=0))
        assert np.isfinite(fit(loaded)).all()


TRAIN_ELSEWHERE = """
import sys
import keras, numpy as np
import nets.nets_factory

model = keras.saving.load_model(sys.argv[1])
model.compile('sgd', keras.losses.SparseCategoricalCrossentropy(from_logits=True))
images = np.random.RandomState(0).uniform(-1, 1, (4, *model.input_shape[1:])).astype('float32')
print(np.isfinite(model.fit(images, np.arange(4), verbose=0).history['loss']).all())
"""


@pytest.mark.full
def test_an_exported_file_trains_where_the_layers_can_be_imported(trained, tmp_path):
    path = str(tmp_path / 'net.keras')
    exporting.export(make_config(ExportConfig, checkpoint_path=trained.checkpoint_path, output_path=path))
    finished = run_python('-c', TRAIN_ELSEWHERE, path)
    assert finished.stdout == 'True\n', finished.stderr
