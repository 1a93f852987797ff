"""The optimizers and the moving averages, step by step against TF1 and against NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from configs.config import DeviceOptions, OptimizerOptions
from configs.errors import InputError
from engine import distribution
from engine.moving_averages import ExponentialMovingAverage
from engine.optimizers import OPTIMIZERS, clip_by_global_norm, make_optimizer

W0 = np.array([0.5, -1.0, 0.25, 2.0], np.float32)


def make_strategy(replicas: int) -> tf.distribute.Strategy:
    if replicas == 1:
        return tf.distribute.get_strategy()
    return distribution.make_strategy(DeviceOptions(devices='cpu', num_clones=replicas))


def make_variable(value: np.ndarray, kind: str) -> keras.Variable | tf.Variable:
    return keras.Variable(value, dtype='float32') if kind == 'keras' else tf.Variable(value)


def copies(strategy: tf.distribute.Strategy, variable: keras.Variable | tf.Variable) -> list[np.ndarray]:
    """Returns the value of each replica's copy."""
    variable = variable.value if isinstance(variable, keras.Variable) else variable
    values = [copy.numpy() for copy in strategy.experimental_local_results(variable)]
    assert len(values) == strategy.num_replicas_in_sync
    return values


class Trainer:
    """One variable `w` under an optimizer and perhaps a moving average, stepped by given gradients."""

    def __init__(self, options, replicas=1, kind='keras', decay=0.0, average=None, w0=W0, jit_compile=False):
        self.strategy = make_strategy(replicas)
        self.optimizer = make_optimizer(options)
        self.average = None if average is None else ExponentialMovingAverage(average)
        with self.strategy.scope():
            self.w = make_variable(w0, kind)
            self.optimizer.build({'w': self.w}, {'w': decay, 'frozen': 1.0})
            if self.average:
                self.average.build({'w': self.w})
        self._step = tf.function(self._strategy_step, jit_compile=jit_compile)

    def _strategy_step(self, gradient, rate, step):
        self.strategy.run(self._replica_step, (gradient, rate, step))

    def _replica_step(self, gradient, rate, step):
        self.optimizer.apply({'w': gradient}, rate)
        if self.average:
            self.average.update(step)

    def step(self, gradient: np.ndarray, rate: float, step: int = 0) -> np.ndarray:
        """Returns the weights after one more step, the same in all replicas."""
        self._step(tf.constant(gradient), tf.constant(rate, tf.float32), tf.constant(step, tf.int64))
        first, *others = copies(self.strategy, self.w)
        for other in others:
            np.testing.assert_array_equal(other, first)
        return first


@pytest.fixture(scope='module')
def trajectories(shared_path):
    return np.load(shared_path('goldens/optimizer_trajectories.npz'))


def test_every_optimizer_has_a_recorded_trajectory(trajectories):
    recorded = {name.removesuffix('_slot_names') for name in trajectories if name.endswith('_slot_names')}
    assert recorded == set(OPTIMIZERS)


@pytest.mark.parametrize(
    ('replicas', 'kind', 'jit_compile'),
    [(1, 'keras', False), (1, 'tf', False), (1, 'keras', True), (2, 'keras', False), (2, 'tf', False)],
)
@pytest.mark.parametrize('name', OPTIMIZERS)
def test_trajectory_is_that_of_tf1(trajectories, name, replicas, kind, jit_compile):
    options = OptimizerOptions(optimizer=name)
    trainer = Trainer(options, replicas, kind, w0=trajectories['w0'], jit_compile=jit_compile)
    first = {slot: np.ravel(variable.numpy())[0] for slot, variable in trainer.optimizer.slots.items()}
    weights = [trainer.step(*row) for row in zip(trajectories['grads'], trajectories['lrs'], strict=True)]
    np.testing.assert_allclose(weights, trajectories[name], rtol=2e-6, atol=1e-7)

    slot_names = list(trajectories[f'{name}_slot_names'])
    assert list(trainer.optimizer.slots) == slot_names
    np.testing.assert_array_equal([first[slot] for slot in slot_names], trajectories[f'{name}_slot_init0'])
    for slot, expected in zip(slot_names, trajectories[f'{name}_slot_final0'], strict=True):
        for copy in copies(trainer.strategy, trainer.optimizer.slots[slot]):
            np.testing.assert_allclose(np.ravel(copy)[0], expected, rtol=2e-6)


def test_hyperparameters_reach_the_rules():
    fields = {
        'adadelta': {'adadelta_rho': 0.5, 'opt_epsilon': 0.1},
        'adagrad': {'adagrad_initial_accumulator_value': 1.0},
        'adam': {'adam_beta1': 0.5, 'adam_beta2': 0.5, 'opt_epsilon': 0.1},
        'ftrl': {
            'ftrl_learning_rate_power': -0.2,
            'ftrl_initial_accumulator_value': 1.0,
            'ftrl_l1': 0.1,
            'ftrl_l2': 0.1,
        },
        'momentum': {'momentum': 0.5},
        'sgd': {},
        'rmsprop': {'rmsprop_decay': 0.5, 'rmsprop_momentum': 0.5, 'opt_epsilon': 0.1},
    }
    assert set(fields) == set(OPTIMIZERS)
    for name, values in fields.items():
        default = _two_steps(OptimizerOptions(optimizer=name))
        for field, value in values.items():
            changed = _two_steps(OptimizerOptions(optimizer=name, **{field: value}))
            assert not np.allclose(changed, default, rtol=1e-4), (name, field)


def _two_steps(options: OptimizerOptions) -> np.ndarray:
    trainer = Trainer(options)
    trainer.step(W0 + 1.0, 0.1)
    return trainer.step(W0 - 1.0, 0.1)


@pytest.mark.parametrize('replicas', [1, 2])
def test_weight_decay_and_clipping_follow_numpy(replicas):
    """The L2 gradient is part of what is clipped; a norm below the limit is left alone."""
    decay, clip_norm, rate = 0.1, 1.5, 0.2
    options = OptimizerOptions(optimizer='momentum', clip_gradient_norm=clip_norm)
    trainer = Trainer(options, replicas, decay=decay)
    w, velocity, clipped = W0.copy(), np.zeros_like(W0), []
    for gradient in np.random.RandomState(0).normal(size=(6, 4)).astype(np.float32):
        total = gradient + decay * w
        norm = np.linalg.norm(total)
        clipped.append(norm > clip_norm)
        velocity = 0.9 * velocity + total * min(1.0, clip_norm / norm)
        w = w - rate * velocity
        np.testing.assert_allclose(trainer.step(gradient, rate), w, rtol=1e-5)
    assert set(clipped) == {True, False}


def test_total_gradient_is_that_of_the_total_loss():
    optimizer = make_optimizer(OptimizerOptions())
    variables = {'weights': tf.Variable(W0), 'biases': tf.Variable(W0)}
    decays = {'weights': 0.3}
    optimizer.build(variables, decays)
    with tf.GradientTape() as tape:
        losses = {name: tf.reduce_sum(tf.sin(variable)) for name, variable in variables.items()}
        total = tf.add_n(list(losses.values())) + 0.3 * tf.nn.l2_loss(variables['weights'])
    expected = tape.gradient(total, variables)
    actual = optimizer.total_gradients({name: tf.cos(variable) for name, variable in variables.items()})
    for name in variables:
        np.testing.assert_allclose(actual[name], expected[name], rtol=1e-6)


def test_clipping_scales_all_gradients_by_one_factor():
    clipped = clip_by_global_norm({'a': tf.constant([3.0, 0.0]), 'b': tf.constant(4.0)}, 1.0)
    assert list(clipped) == ['a', 'b']
    np.testing.assert_allclose(clipped['a'], [0.6, 0.0], rtol=1e-6)
    np.testing.assert_allclose(clipped['b'], 0.8, rtol=1e-6)


def test_unknown_optimizer_is_named():
    with pytest.raises(InputError, match=r"unknown optimizer 'rmsprob' \(did you mean 'rmsprop'\?\); valid: ada"):
        make_optimizer(OptimizerOptions(optimizer='rmsprob'))


@pytest.mark.parametrize('replicas', [1, 2])
def test_moving_average_is_that_of_tf1(shared_path, replicas):
    golden = np.load(shared_path('goldens/losses_metrics_ema.npz'))
    strategy = make_strategy(replicas)
    with strategy.scope():
        variable = keras.Variable(1.0, dtype='float32')
        average = ExponentialMovingAverage(0.9999)
        average.build({'w': variable})
    update = tf.function(lambda step: strategy.run(average.update, (step,)))
    for step, (value, expected) in enumerate(zip(golden['ema_inputs'], golden['ema_values'], strict=True)):
        variable.assign(value)
        update(tf.constant(step, tf.int64))
        for copy in copies(strategy, average.averages['w/ExponentialMovingAverage']):
            np.testing.assert_allclose(copy, expected, rtol=1e-6)


@pytest.mark.parametrize('replicas', [1, 2])
def test_moving_average_follows_the_update_of_its_step(replicas):
    trainer = Trainer(OptimizerOptions(optimizer='sgd'), replicas, average=0.15)
    assert trainer.average is not None
    (average,) = trainer.average.averages.values()
    expected: np.ndarray = W0
    for step in range(5):
        w = trainer.step(np.ones_like(W0), 0.5, step)
        decay = min(0.15, (1 + step) / (10 + step))
        expected = np.float32(decay) * expected + np.float32(1 - decay) * w
        for copy in copies(trainer.strategy, average):
            np.testing.assert_allclose(copy, expected, rtol=1e-6)
