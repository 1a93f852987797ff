"""The optimizers and the moving averages, step by step against TF1 and against NumPy."""

import dataclasses
import re
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from configs.devices import DeviceOptions
from configs.training import OptimizerOptions
from engine.checkpoints.names import is_slot, optimizer_of
from engine.distributed import distribution
from engine.optim import losses
from engine.optim.moving_averages import ExponentialMovingAverage
from engine.optim.optimizers import OPTIMIZERS, clip_by_global_norm, make_optimizer
from engine.training.state import make_state
from support.errors import InputError
from tests.runs import small_config, tiny_spec

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
        with self.strategy.scope():
            self.w = make_variable(w0, kind)
            self.optimizer.build({'w': self.w}, {'w': decay, 'frozen': 1.0})
            self.average = None if average is None else ExponentialMovingAverage(average, {'w': self.w})
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


# ------------------------------------------------------------------------ TF1's


def test_every_optimizer_has_a_reference(trajectories):
    recorded = {name.removesuffix('_slot_names') for name in trajectories if name.endswith('_slot_names')}
    assert recorded == set(OPTIMIZERS) - set(PAPERS)
    assert set(PAPERS) <= set(OPTIMIZERS)


@pytest.mark.parametrize(
    ('replicas', 'kind', 'jit_compile'),
    [(1, 'keras', False), (1, 'tf', False), (1, 'keras', True), (2, 'keras', False), (2, 'tf', False)],
)
@pytest.mark.parametrize('name', [name for name in OPTIMIZERS if name not in ('lars', 'lamb')])
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
    fields: dict[str, dict[str, Any]] = {
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
        'lars': {'momentum': 0.5, 'lars_eta': 0.1, 'trust_ratio_exclude': ('w',)},
        'lamb': {'adam_beta1': 0.5, 'adam_beta2': 0.5, 'lamb_epsilon': 0.1, 'trust_ratio_exclude': ('w',)},
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


# ------------------------------------------------------------------------ those for large batches, against their papers

DECAYS = {'conv/weights': 0.1, 'late/weights': 0.2, 'zero/weights': 0.05, 'fc/biases': 0.3}
EXCLUDED = 'fc/biases'
LARGE_BATCH = OptimizerOptions(clip_gradient_norm=6.0, lars_eta=0.02, trust_ratio_exclude=('gamma$', 'biases$'))


def layers_and_gradients() -> tuple[dict[str, np.ndarray], list[dict[str, np.ndarray]]]:
    """Returns start values, one of them 0, and the gradients of 100 steps, one of them 0 in the first of these."""
    random = np.random.RandomState(0)
    shapes = {
        'conv/weights': (3, 2, 4),
        'free/weights': (5,),
        'late/weights': (4,),
        'zero/weights': (6,),
        EXCLUDED: (3,),
    }
    weights = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    weights['zero/weights'][:] = 0.0
    gradients = [
        {name: (random.normal(size=shape) + 0.3).astype(np.float32) for name, shape in shapes.items()}
        for _ in range(100)
    ]
    for row in gradients[:3]:
        row['late/weights'][:] = 0.0
    return weights, gradients


def clipped(gradients, options):
    """Returns them in float64, scaled to the norm that the options allow."""
    norm = np.sqrt(sum(np.sum(np.square(gradient, dtype=np.float64)) for gradient in gradients.values()))
    return {
        name: gradient.astype(np.float64) * min(1, options.clip_gradient_norm / norm)
        for name, gradient in gradients.items()
    }


def lars_of_the_paper(options, weights, gradients, rates):
    """Yields the weights after each step of arXiv:1708.03888, algorithm 1."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    v = {name: np.zeros_like(value) for name, value in w.items()}
    for row, rate in zip(gradients, rates, strict=True):
        for name, g in clipped(row, options).items():
            decay, local_rate = DECAYS.get(name, 0.0), 1.0
            w_norm, g_norm = np.linalg.norm(w[name]), np.linalg.norm(g)
            if name != EXCLUDED and w_norm and g_norm:
                local_rate = options.lars_eta * w_norm / (g_norm + decay * w_norm)
            v[name] = options.momentum * v[name] + rate * local_rate * (g + decay * w[name])
            w[name] = w[name] - v[name]
        yield w


def lamb_of_the_paper(options, weights, gradients, rates):
    """Yields the weights after each step of arXiv:1904.00962, algorithm 2."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    m, v = ({name: np.zeros_like(value) for name, value in w.items()} for _ in range(2))
    # 1 - 0.999 has four digits fewer than 0.999: it is float32's, in which TF1 keeps the powers.
    beta1, beta2 = np.float32(options.adam_beta1), np.float32(options.adam_beta2)
    power1, power2 = beta1, beta2
    for row, rate in zip(gradients, rates, strict=True):
        for name, g in clipped(row, options).items():
            m[name] = float(beta1) * m[name] + float(1 - beta1) * g
            v[name] = float(beta2) * v[name] + float(1 - beta2) * g**2
            m_hat, v_hat = m[name] / float(1 - power1), v[name] / float(1 - power2)
            u = m_hat / (np.sqrt(v_hat) + options.lamb_epsilon) + DECAYS.get(name, 0.0) * w[name]
            w_norm, u_norm = np.linalg.norm(w[name]), np.linalg.norm(u)
            ratio = w_norm / u_norm if name != EXCLUDED and w_norm and u_norm else 1.0
            w[name] = w[name] - rate * ratio * u
        power1, power2 = power1 * beta1, power2 * beta2
        yield w


PAPERS = {'lars': lars_of_the_paper, 'lamb': lamb_of_the_paper}


@pytest.mark.quick('lamb-1-tf*', 'lars-1-tf*')
@pytest.mark.parametrize(
    ('replicas', 'kind', 'jit_compile'), [(1, 'keras', False), (1, 'tf', True), (2, 'keras', False)]
)
@pytest.mark.parametrize('name', PAPERS)
def test_trajectory_is_that_of_the_paper(name, replicas, kind, jit_compile):
    options = dataclasses.replace(LARGE_BATCH, optimizer=name)
    weights, gradients = layers_and_gradients()
    rates = np.linspace(0.1, 0.001, len(gradients), dtype=np.float32)
    strategy, optimizer = make_strategy(replicas), make_optimizer(options)
    with strategy.scope():
        variables = {layer: make_variable(value, kind) for layer, value in weights.items()}
        optimizer.build(variables, {**DECAYS, 'frozen/weights': 1.0})

    @tf.function(jit_compile=jit_compile)
    def step(row, rate):
        strategy.run(optimizer.apply, (row, rate))

    norms = [np.sqrt(sum(np.sum(gradient**2) for gradient in row.values())) for row in gradients]
    assert min(norms) < options.clip_gradient_norm < max(norms)
    expected = PAPERS[name](options, weights, gradients, rates)
    for row, rate, layers in zip(gradients, rates, expected, strict=True):
        step({layer: tf.constant(gradient) for layer, gradient in row.items()}, tf.constant(rate))
        for layer, value in layers.items():
            first, *others = copies(strategy, variables[layer])
            np.testing.assert_allclose(first, value, rtol=1e-6, atol=1e-6, err_msg=layer)
            for other in others:
                np.testing.assert_array_equal(other, first)


@pytest.mark.parametrize('name', PAPERS)
def test_weight_decay_is_part_of_the_rule(name):
    """The raw gradient is what is clipped, and what LARS measures."""
    optimizer = make_optimizer(OptimizerOptions(optimizer=name))
    optimizer.build({'w': tf.Variable(W0)}, {'w': 0.5})
    np.testing.assert_array_equal(optimizer.total_gradients({'w': tf.constant(W0)})['w'], W0)


@pytest.mark.parametrize(('name', 'slots'), [('lars', ['LARS']), ('lamb', ['LAMB', 'LAMB_1'])])
def test_slots_have_names_as_tf1_gives_them(name, slots):
    optimizer = make_optimizer(OptimizerOptions(optimizer=name))
    optimizer.build({'fc/weights': tf.Variable(W0)}, {})
    powers = ['beta1_power', 'beta2_power'] if name == 'lamb' else []
    assert list(optimizer.slots) == [*powers, *(f'fc/weights/{slot}' for slot in slots)]
    assert all(map(is_slot, optimizer.slots))
    assert optimizer_of(optimizer.slots) == name


# ------------------------------------------------------------------------ which weights decay


def small_state(**options):
    return make_state(small_config('', '', **options), tiny_spec(num_classes=10, channels=1))


@pytest.mark.parametrize(
    ('excluded', 'decayed'),
    [
        ((), ['conv1', 'conv2', 'fc3', 'fc4']),
        (('fc3/',), ['conv1', 'conv2', 'fc4']),
        (('^LeNet/conv', 'fc4/weights$'), ['fc3']),
        (('weights',), []),
    ],
)
def test_excluded_weights_have_neither_l2_loss_nor_gradient(excluded, decayed):
    state = small_state(weight_decay=0.1, weight_decay_exclude=excluded)
    names = [f'LeNet/{layer}/weights' for layer in decayed]
    values = {name: variable.numpy() for name, variable in state.variables.items()}
    expected = sum(0.1 * np.sum(values[name] ** 2) / 2 for name in names)
    np.testing.assert_allclose(losses.l2_loss(state.variables, state.weight_decays), expected, rtol=1e-5)
    gradients = state.optimizer.total_gradients({name: tf.zeros_like(value) for name, value in values.items()})
    for name, gradient in gradients.items():
        np.testing.assert_allclose(gradient, 0.1 * values[name] if name in names else 0.0 * values[name], rtol=1e-6)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (
            {'weight_decay_exclude': ('fc3', 'gamma$')},
            '--weight_decay_exclude=gamma$: matches no variable that decays; there are LeNet/conv1/weights, LeNet/',
        ),
        (
            {'weight_decay_exclude': ('biases',)},
            '--weight_decay_exclude=biases: matches no variable that decays; there',
        ),
        ({'weight_decay_exclude': ('fc3',), 'weight_decay': 0.0}, 'no variable that decays; there are none'),
    ],
)
def test_exclusions_that_match_nothing(options, message):
    with pytest.raises(InputError, match=re.escape(message)):
        small_state(**options)


# ------------------------------------------------------------------------ names, and moving averages


def test_unknown_optimizer_is_named():
    with pytest.raises(InputError, match=r"unknown optimizer 'rmsprob' \(did you mean 'rmsprop'\?\); valid: ada"):
        make_optimizer(OptimizerOptions(optimizer='rmsprob'))


@pytest.mark.parametrize('replicas', [1, 2])
def test_moving_average_is_that_of_tf1(shared_path, replicas):
    golden = np.load(shared_path('goldens/losses_metrics_ema.npz'))
    strategy = make_strategy(replicas)
    with strategy.scope():
        variable = keras.Variable(1.0, dtype='float32')
        average = ExponentialMovingAverage(0.9999, {'w': variable})
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
