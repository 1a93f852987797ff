r"""Gradients and steps that slim has recorded, with kernels that use no newer instructions than TensorFlow 1.15's did.

    TF_ENABLE_ONEDNN_OPTS=0 ONEDNN_MAX_CPU_ISA=AVX XLA_FLAGS=--xla_cpu_max_isa=AVX \
        python -m pytest tests/recorded_steps.py

`test_training.py` runs it so. With others, products are added up in other orders, and by the third step a value passes
a ReLU that slim's did not: that moves the biases of conv1 by 5e-4, on some machines and not on others.
"""

import functools

import numpy as np
import pytest
import tensorflow as tf

from configs.options import make_config
from configs.training import TrainConfig
from engine.classifiers.model_spec import ModelSpec
from engine.optim.reduction import Reduction
from engine.optim.schedules import make_schedule
from engine.training.state import Position, TrainState, make_state
from engine.training.step import ReplicaStep, make_steps
from nets.variables import slim_variables
from preprocessing.augmentation import Augmentation
from tests.test_nets import error, filled_model, make_images, recorded_fill

TOLERANCE = 1e-4


@pytest.mark.parametrize('case', ['nc10_rmsprop', 'nc1001_momentum'])
def test_alexnet_gradients_are_slims(shared_path, case):
    recorded = np.load(shared_path(f'goldens/train_{case}.npz'))
    weight_decay = float(recorded['weight_decay'])
    model = filled_model('alexnet_v2', int(recorded['num_classes']), weight_decay=weight_decay)
    variables = slim_variables(model)
    assert list(variables) == list(recorded['names'])
    with tf.GradientTape() as tape:
        logits = model(make_images(model))
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(recorded['labels'], logits)
        cross_entropy, regularization = tf.reduce_mean(losses), sum(model.losses)
        total = cross_entropy + regularization
    gradients = tape.gradient(total, [variable.value for variable in variables.values()])

    assert error(logits, recorded['logits']) < TOLERANCE
    np.testing.assert_allclose(cross_entropy, recorded['ce_loss'], rtol=TOLERANCE)
    np.testing.assert_allclose(regularization, recorded['reg_loss'], rtol=TOLERANCE)
    np.testing.assert_allclose(total, recorded['total_loss'], rtol=TOLERANCE)
    for i, (name, gradient) in enumerate(zip(variables, gradients, strict=True)):
        norm = np.linalg.norm(gradient.numpy().astype(np.float64))
        np.testing.assert_allclose(norm, recorded['grad_norm'][i], rtol=TOLERANCE, err_msg=name)
        first5 = gradient.numpy().flat[:5]
        assert error(first5, recorded['grad_first5'][i], recorded['grad_std'][i]) < TOLERANCE, name


class AsRecorded:
    """A preprocessing that hands on the images as they are: the recorded steps begin at the net's input."""

    def make_draws(self, seed, batch_size):
        return {}

    def device_train(self, batch, draws):
        return batch


class RecordedRun:
    """alexnet_v2 with the recorded weights, stepped on the recorded batch by the project's own step."""

    def __init__(self, recorded, xla=False, fast_convolutions=False, **options):
        num_classes = int(recorded['num_classes'])
        labels = tf.constant(recorded['labels'], tf.int32)
        config = make_config(
            TrainConfig, model_name='alexnet_v2', dropout_keep_prob=1.0, batch_size=len(labels), **options
        )
        assert config.net.weight_decay == pytest.approx(recorded['weight_decay'])
        assert config.loss.label_smoothing == recorded['label_smoothing']
        strategy = tf.distribute.OneDeviceStrategy('CPU:0')
        with strategy.scope():
            self.state = make_state(config, recorded_spec(num_classes))
        self.start = fill(self.state)
        # Slim's decay lies thousands of steps ahead.
        schedule = make_schedule(config.schedule, steps_per_epoch=1000, total_steps=None)
        step = ReplicaStep(
            self.state,
            Augmentation(AsRecorded()),  # type: ignore[arg-type]
            schedule,
            Reduction(num_replicas=1),
            batch_size=len(labels),
            seed=0,
            label_smoothing=config.loss.label_smoothing,
            xla=xla,
            fast_convolutions=fast_convolutions,
        )
        images = np.random.RandomState(0).uniform(-1, 1, (len(labels), 224, 224, 3)).astype(np.float32)
        self._batches = iter(tf.data.Dataset.from_tensors({'image': images, 'label': labels}).repeat())
        self._run, self._batch_size = make_steps(strategy, step, schedule, len(labels)), len(labels)
        self._steps = 0

    def step(self):
        """Makes one step; returns its report."""
        report = self._run(self._batches, Position(self._steps, self._steps * self._batch_size), 1)
        self._steps += 1
        return report


def recorded_spec(num_classes: int) -> ModelSpec:
    return ModelSpec(
        model_name='alexnet_v2',
        num_classes=num_classes,
        image_size=224,
        channels=3,
        preprocessing_name='inception',
        depth_multiplier=1.0,
        labels_offset=0,
        use_grayscale=False,
        dataset_name='imagenet',
        dataset_dir='',
        label_names=(),
    )


cached_fill = functools.cache(recorded_fill)


def fill(state: TrainState) -> dict[str, np.ndarray]:
    """Gives every variable the value that it had when slim was recorded; returns these."""
    values = {name: cached_fill(name, tuple(variable.shape)) for name, variable in state.variables.items()}
    for name, variable in state.variables.items():
        variable.assign(values[name])
    return values


def check_statistics(recorded, prefix: str, names, value_of) -> None:
    """Compares mean, deviation and first values of each tensor; each relative to the tensor's own spread."""
    for i, name in enumerate(names):
        value = value_of(str(name)).astype(np.float64)
        scale = max(recorded[f'{prefix}std'][i], abs(recorded[f'{prefix}mean'][i]), 1e-12)
        pairs = {
            'mean': (value.mean(), recorded[f'{prefix}mean'][i]),
            'std': (value.std(), recorded[f'{prefix}std'][i]),
            'first5': (value.ravel()[:5], recorded[f'{prefix}first5'][i][: value.size]),
        }
        if f'{prefix}last5' in recorded:
            pairs['last5'] = (value.ravel()[-5:], recorded[f'{prefix}last5'][i][-value.size :])
        for what, (actual, expected) in pairs.items():
            np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE * scale, err_msg=f'{name} {what}')


# Momentum only with XLA, whose convolutions round like TensorFlow 1's. RMSProp's steps are smaller.
@pytest.mark.parametrize(('optimizer', 'xla'), [('rmsprop', False), ('momentum', True)])
def test_steps_are_slims(shared_path, optimizer, xla):
    recorded = np.load(shared_path(f'goldens/train_nc10_{optimizer}_lr1e-4.npz'))
    run = RecordedRun(recorded, xla, optimizer=optimizer, learning_rate=1e-4)
    names = [str(name) for name in recorded['names']]
    assert list(run.state.trainable) == names
    for k in range(3):
        report = run.step()
        total = report.cross_entropy[0] + report.regularization
        np.testing.assert_allclose(total, recorded['losses'][k], rtol=TOLERANCE)
        assert report.learning_rate == recorded['lrs'][k]
        values = {name: variable.numpy() for name, variable in run.state.variables.items()}
        check_statistics(recorded, f'step{k + 1}_', names, values.__getitem__)
        deltas = [np.linalg.norm((values[name].astype(np.float64) - run.start[name]).ravel()) for name in names]
        np.testing.assert_allclose(deltas, recorded[f'step{k + 1}_delta_norm'], rtol=TOLERANCE)
    slots = run.state.optimizer.slots
    assert sorted(slots) == sorted(recorded['slot_names'])
    check_statistics(recorded, 'slot_', recorded['slot_names'], lambda name: slots[name].numpy())


@pytest.mark.parametrize('fast_convolutions', [False, True])
@pytest.mark.parametrize('case', ['nc10_momentum', 'nc1001_momentum'])
def test_first_step_of_momentum_is_the_gradient_of_slims_total_loss(shared_path, case, fast_convolutions):
    recorded = np.load(shared_path(f'goldens/train_{case}.npz'))
    run = RecordedRun(recorded, fast_convolutions=fast_convolutions, optimizer='momentum', learning_rate=0.01)
    report = run.step()
    np.testing.assert_allclose(report.cross_entropy[0], recorded['ce_loss'], rtol=TOLERANCE)
    np.testing.assert_allclose(report.regularization, recorded['reg_loss'], rtol=TOLERANCE)
    np.testing.assert_allclose(report.learning_rate, recorded['lr0'], rtol=1e-6)
    slots = run.state.optimizer.slots
    gradients = {name: slots[f'{name}/Momentum'].numpy().astype(np.float64) for name in run.state.trainable}
    norms = [np.linalg.norm(gradients[str(name)].ravel()) for name in recorded['names']]
    np.testing.assert_allclose(norms, recorded['grad_norm'], rtol=TOLERANCE)
    check_statistics(recorded, 'grad_', recorded['names'], gradients.__getitem__)
