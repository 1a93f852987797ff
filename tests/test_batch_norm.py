"""Batch normalisation against Keras' own layer, under XLA, and by replicas against one device."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

import keras
import numpy as np
import pytest
import tensorflow as tf

from configs.devices import DeviceOptions
from engine.distributed import distribution
from nets.layers import BatchNormalization, batch_statistics, step_randomness, update_moving
from nets.nets_factory import make_model

Layer: TypeAlias = keras.layers.BatchNormalization

# Policy -> largest difference relative to the largest value: an ulp or two of what the layer computes in.
TOLERANCES = {'float32': 2e-6, 'mixed_bfloat16': 8e-3, 'mixed_float16': 1e-3}
SHAPE = (8, 5, 4, 3)
VALUES = SHAPE[0] * SHAPE[1] * SHAPE[2]  # of a channel

for_every_policy = pytest.mark.parametrize('policy', TOLERANCES)


def make_inputs(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Returns float32 of `shape`, each channel with a mean and a spread of its own."""
    rng = np.random.default_rng(0)
    return rng.normal(np.arange(shape[-1]) - 0.5, np.arange(1, shape[-1] + 1) / 2, shape).astype(np.float32)


def fill(*layers: Layer) -> None:
    """Gives layers of one size the same variables, none as they start."""
    rng = np.random.default_rng(1)
    values = [rng.uniform(0.5, 2.0, variable.shape) for variable in layers[0].variables]
    for layer in layers:
        layer.set_weights(values)


def make_layers(policy: str, shape: tuple[int, ...] = SHAPE, **options: Any) -> list[Layer]:
    """Returns our layer and Keras', alike."""
    layers = [cls(dtype=policy, **options) for cls in (BatchNormalization, Layer)]
    for layer in layers:
        layer.build(shape)
    fill(*layers)
    return layers


def make_weights(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    """Returns the gradient of outputs: float32 of `shape`."""
    return np.random.default_rng(2).normal(size=shape).astype(np.float32)


def outputs_and_gradients(
    layer: Layer, inputs: Any, training: bool = True, weights: tf.Tensor | None = None
) -> list[tf.Tensor]:
    """Returns the outputs, and the gradients of inputs, gamma and beta."""
    inputs = tf.cast(inputs, layer.compute_dtype)
    weights = make_weights(inputs.shape) if weights is None else weights
    variables = [inputs, *(variable.value for variable in layer.trainable_variables)]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(variables)
        outputs = layer(inputs, training=training)
        # In float32: the gradient of the outputs is rounded once, for either layer.
        loss = tf.reduce_sum(weights * tf.cast(outputs, tf.float32))
    return [outputs, *tape.gradient(loss, variables)]


def assert_close(values: Sequence[tf.Tensor], expected: Sequence[tf.Tensor], tolerance: float) -> None:
    for value, other in zip(values, expected, strict=True):
        assert value.dtype == other.dtype
        value, other = np.asarray(value, np.float64), np.asarray(other, np.float64)
        assert value.shape == other.shape
        assert np.max(np.abs(value - other)) <= tolerance * np.max(np.abs(other))


# --- Against Keras ------------------------------------------------------------------------------------------


@for_every_policy
@pytest.mark.parametrize('shape', [SHAPE, (32, 3), (4, 2, 3, 2, 3)], ids=str)
def test_training_is_keras(policy: str, shape: tuple[int, ...]) -> None:
    ours, kerass = make_layers(policy, shape)
    values, expected = (outputs_and_gradients(layer, make_inputs(shape)) for layer in (ours, kerass))
    assert values[0].dtype == ours.compute_dtype
    assert {variable.dtype for variable in ours.variables} == {'float32'}
    assert_close(values, expected, TOLERANCES[policy])


@for_every_policy
@pytest.mark.parametrize('frozen', [False, True], ids=['inference', 'frozen layer in training'])
def test_moving_statistics_are_used_as_keras_does(policy: str, frozen: bool) -> None:
    layers = make_layers(policy)
    for layer in layers:
        layer.trainable = not frozen
    with batch_statistics() as statistics:
        values, expected = (outputs_and_gradients(layer, make_inputs(), training=frozen) for layer in layers)
    assert not statistics
    assert_close(values, expected, TOLERANCES[policy])


@for_every_policy
@pytest.mark.parametrize('by_caller', [True, False])
def test_moving_statistics_move_as_kerass_by_the_unbiased_variance(policy: str, by_caller: bool) -> None:
    ours, kerass = make_layers(policy, momentum=0.9)
    before = [variable.numpy() for variable in ours.non_trainable_variables]
    inputs = make_inputs()
    kerass(inputs, training=True)

    @tf.function(autograph=False)
    def step() -> None:
        if not by_caller:
            ours(inputs, training=True)
            return
        with batch_statistics() as statistics:
            ours(inputs, training=True)
        update_moving([(one.variable, one.momentum) for one in statistics], [one.value for one in statistics])

    step()
    for variable, other, start, factor in zip(
        ours.non_trainable_variables, kerass.non_trainable_variables, before, (1.0, VALUES / (VALUES - 1)), strict=True
    ):
        change = variable.numpy() - start
        assert np.abs(change).max() > 0.01
        np.testing.assert_allclose(change, factor * (other.numpy() - 0.9 * start) - 0.1 * start, rtol=1e-4)


@pytest.mark.parametrize(('center', 'scale'), [(False, True), (True, False), (False, False)])
def test_without_gamma_or_beta(center: bool, scale: bool) -> None:
    ours, kerass = make_layers('float32', center=center, scale=scale, epsilon=0.1)
    assert [variable.name for variable in ours.variables] == [variable.name for variable in kerass.variables]
    values, expected = (outputs_and_gradients(layer, make_inputs()) for layer in (ours, kerass))
    assert_close(values, expected, TOLERANCES['float32'])


# --- What is reported ---------------------------------------------------------------------------------------


@for_every_policy
def test_statistics_are_those_of_the_batch(policy: str) -> None:
    layer, _ = make_layers(policy, momentum=0.75)
    inputs = tf.cast(make_inputs(), layer.compute_dtype)
    with batch_statistics() as statistics:
        layer(inputs, training=True)
    assert [(one.variable, one.momentum) for one in statistics] == [
        (layer.moving_mean, 0.75),
        (layer.moving_variance, 0.75),
    ]
    exact = np.asarray(inputs, np.float64)
    for one, expected in zip(statistics, (exact.mean((0, 1, 2)), exact.var((0, 1, 2), ddof=1)), strict=True):
        assert one.value.dtype == tf.float32
        np.testing.assert_allclose(one.value, expected, rtol=1e-5)


def test_one_value_has_no_variance() -> None:
    layer, _ = make_layers('float32')
    for reduce_mean in (None, list):
        with batch_statistics(reduce_mean) as statistics:
            outputs = layer(np.ones((1, 1, 1, 3), np.float32), training=True)
        np.testing.assert_allclose(outputs[0, 0, 0], layer.beta, rtol=1e-6)
        assert [one.value.numpy().tolist() for one in statistics] == [[1.0] * 3, [0.0] * 3]


def test_layers_report_in_the_order_of_their_calls_and_assign_nothing() -> None:
    model = make_model('alexnet_bn', 10, image_size=67, depth_multiplier=0.25)
    before = [variable.numpy() for variable in model.non_trainable_variables]
    images = make_inputs((2, *model.input_shape[1:]))
    with step_randomness(tf.constant([1, 2]), 0):
        with batch_statistics() as statistics:
            logits = model(images, training=True)
            model(images)
        with batch_statistics():
            again = model(images, training=True)
    names = [f'{layer}/{name}' for layer in ('bn1', 'bn2') for name in ('moving_mean', 'moving_variance')]
    assert [one.variable.path for one in statistics] == names
    assert [tuple(one.value.shape) for one in statistics] == [(24,), (24,), (64,), (64,)]
    np.testing.assert_array_equal(again, logits)
    for variable, value in zip(model.non_trainable_variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


def test_reduced_statistics_keep_small_variances_far_from_zero() -> None:
    layer, _ = make_layers('float32')
    layer.moving_mean.assign([1000.0] * 3)
    inputs = 1000.5 + 0.1 * make_inputs()
    with batch_statistics(list) as statistics:
        layer(inputs, training=True)
    np.testing.assert_allclose(statistics[1].value, np.var(inputs, (0, 1, 2), np.float64, ddof=1), rtol=1e-4)


# --- XLA and replicas ---------------------------------------------------------------------------------------


@for_every_policy
def test_compiled_computes_the_same(policy: str) -> None:
    layer, _ = make_layers(policy)

    def compute() -> list[tf.Tensor]:
        with batch_statistics() as statistics:
            return [*outputs_and_gradients(layer, make_inputs()), *(one.value for one in statistics)]

    expected = [*compute(), layer(make_inputs())]
    compiled = tf.function(lambda: [*compute(), layer(make_inputs())], jit_compile=True, autograph=False)()
    assert_close(compiled, expected, TOLERANCES[policy])


def run_replicas(policy: str, inputs: np.ndarray, synchronized: bool) -> tuple[Layer, list[tf.Tensor]]:
    """Makes a step on two replicas, each with half of the inputs.

    Returns:
        The layer after the update; outputs, gradients of inputs, gamma and beta, and statistics.
    """
    strategy = distribution.make_strategy(DeviceOptions(devices='cpu', num_clones=2))
    with strategy.scope():
        layer = BatchNormalization(dtype=policy)
        layer.build(inputs.shape)
    fill(layer)
    half = len(inputs) // 2

    def replica() -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        context = tf.distribute.get_replica_context()

        def reduce_mean(values: list[tf.Tensor]) -> list[tf.Tensor]:
            return context.all_reduce(tf.distribute.ReduceOp.MEAN, values)

        offset = half * context.replica_id_in_sync_group
        local, weights = (tf.constant(whole)[offset : offset + half] for whole in (inputs, make_weights(inputs.shape)))
        with batch_statistics(reduce_mean if synchronized else None, 2 if synchronized else 1) as statistics:
            outputs, *gradients = outputs_and_gradients(layer, local, weights=weights)
        values = [one.value for one in statistics]
        reduced = reduce_mean(values)
        update_moving([(one.variable, one.momentum) for one in statistics], reduced)
        local_gradients, *shared_gradients = gradients
        shared_gradients = context.all_reduce(tf.distribute.ReduceOp.SUM, shared_gradients)
        return [outputs, local_gradients], [*shared_gradients, *values]

    per_example, shared = tf.function(lambda: strategy.run(replica), autograph=False)()
    joined = [tf.concat(strategy.experimental_local_results(value), axis=0) for value in per_example]
    first, second = zip(*map(strategy.experimental_local_results, shared), strict=True)
    if synchronized:
        assert_close(second, first, 0.0)
    return layer, [*joined, *first]


@for_every_policy
def test_two_synchronized_replicas_compute_what_one_device_does(policy: str) -> None:
    inputs = make_inputs()
    one_device = BatchNormalization(dtype=policy)
    one_device.build(inputs.shape)
    fill(one_device)
    with batch_statistics() as statistics:
        expected = outputs_and_gradients(one_device, inputs)
    expected += [one.value for one in statistics]
    for one in statistics:
        one.variable.assign(one.momentum * one.variable + (1 - one.momentum) * one.value)

    layer, values = run_replicas(policy, inputs, synchronized=True)
    assert_close(values, expected, TOLERANCES[policy])
    for variable, other in zip(layer.variables, one_device.variables, strict=True):
        for copy in variable.value.values:
            np.testing.assert_allclose(copy, other, rtol=1e-6)


def test_other_replicas_normalize_alone_and_keep_the_mean_of_their_statistics() -> None:
    inputs = make_inputs()
    layer, (outputs, *_) = run_replicas('float32', inputs, synchronized=False)
    alone, _ = make_layers('float32')
    moved = [0.99 * variable.numpy() for variable in alone.non_trainable_variables]
    halves = np.split(inputs, 2)
    assert_close([outputs], [tf.concat([alone(half, training=True) for half in halves], 0)], TOLERANCES['float32'])
    for half in halves:
        moved[0] += 0.005 * half.mean((0, 1, 2))
        moved[1] += 0.005 * half.var((0, 1, 2), ddof=1)
    for variable, expected in zip(layer.non_trainable_variables, moved, strict=True):
        for copy in variable.value.values:
            np.testing.assert_allclose(copy, expected, rtol=1e-6)


# --- As a layer of Keras ------------------------------------------------------------------------------------


@for_every_policy
@pytest.mark.filterwarnings('ignore:__array__ implementation:DeprecationWarning')  # Keras, saving tf.Variable
def test_saved_layer_computes_the_same(policy: str, tmp_path: Path) -> None:
    inputs = keras.Input(SHAPE[1:], dtype='float32')
    layer = BatchNormalization(momentum=0.5, epsilon=0.01, scale=False, dtype=policy)
    model = keras.Model(inputs, layer(inputs))
    fill(layer)
    model.save(tmp_path / 'model.keras')
    loaded = keras.saving.load_model(tmp_path / 'model.keras')
    for training in (False, True):
        np.testing.assert_array_equal(
            *(net(make_inputs(), training=training).numpy().astype(np.float32) for net in (loaded, model))
        )
    assert loaded.layers[-1].get_config() == layer.get_config()
    model.export(tmp_path / 'exported', verbose=False)
    exported = tf.saved_model.load(tmp_path / 'exported')  # holds the variables
    outputs = exported.serve(make_inputs())
    np.testing.assert_array_equal(tf.cast(outputs, tf.float32), tf.cast(model(make_inputs()), tf.float32))


@pytest.mark.parametrize(
    ('name', 'value', 'only'), [('axis', 1, -1), ('synchronized', True, False), ('renorm', True, False)]
)
def test_what_the_layer_does_not_have_is_refused(name: str, value: Any, only: Any) -> None:
    with pytest.raises(ValueError, match=f'BatchNormalization {name}={value}: must be {only}'):
        BatchNormalization(**{name: value})
