"""Slim's larger nets against numbers recorded from slim, and in a training step, a checkpoint and exports."""

import dataclasses
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from configs import names
from configs.foreign import NetOverrides
from engine import checkpoints, evaluation
from engine.classifiers import load_classifier
from engine.optim import losses
from engine.optim.reduction import Reduction
from engine.optim.schedules import make_schedule
from engine.training.state import Position, make_state
from engine.training.step import ReplicaStep, make_steps
from nets.building import zero_weights
from nets.layers import BatchNormalization, auxiliary_logits, batch_statistics
from nets.nets_factory import NETS, get_end_points, get_net, make_model
from nets.variables import slim_variables
from preprocessing.augmentation import Augmentation
from support.errors import InputError
from tests.chains import CHAINS
from tests.recorded_steps import AsRecorded, recorded_spec
from tests.runs import eval_config, saved_values, small_config
from tests.served_nets import export

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


@pytest.mark.quick('float32-1')
@pytest.mark.parametrize('parts', [1, 2])
@pytest.mark.parametrize('precision', ['float32', 'bfloat16'])
def test_a_step_adds_the_auxiliary_loss(precision, parts, digits_dir):
    config = small_config(
        digits_dir,
        'unused',
        model_name='inception_v3',
        depth_multiplier=1 / 16,
        train_image_size=107,
        weight_decay=0.0,
        dropout_keep_prob=1.0,
        mixed_precision=precision,
        batch_size=4,
        label_smoothing=0.1,
    )
    images = np.random.RandomState(0).uniform(-1, 1, (4, 107, 107, 3)).astype(np.float32)
    labels = tf.constant([0, 1, 2, 3])
    spec = dataclasses.replace(recorded_spec(10), model_name='inception_v3', image_size=107, depth_multiplier=1 / 16)
    reported, moved = [], []
    for weight in (0.0, 0.4):
        strategy = tf.distribute.OneDeviceStrategy('CPU:0')
        with strategy.scope():
            state = make_state(config, spec)
        before = {name: variable.numpy() for name, variable in state.variables.items()}
        with auxiliary_logits() as collected, batch_statistics():
            halves = [state.model(images[i : i + 4 // parts], training=True) for i in range(0, 4, 4 // parts)]
        assert len(halves) == len(collected) == parts
        schedule = make_schedule(config.schedule, steps_per_epoch=10, total_steps=None)
        step = ReplicaStep(
            state,
            Augmentation(AsRecorded()),  # type: ignore[arg-type]
            schedule,
            Reduction(num_replicas=1),
            batch_size=4,
            num_batches=parts,
            seed=0,
            label_smoothing=0.1,
            auxiliary_weight=weight,
        )
        batches = iter(tf.data.Dataset.from_tensors({'image': images, 'label': labels}))
        reported.append(make_steps(strategy, step, schedule, 4)(batches, Position(0, 0), 1).cross_entropy[0])
        moved.append({name for name, variable in state.variables.items() if np.any(variable.numpy() != before[name])})
    expected = np.mean(losses.softmax_cross_entropy(tf.concat(collected, 0), labels, 0.1))
    assert reported[1] - reported[0] == pytest.approx(0.4 * expected, rel=1e-4 if precision == 'float32' else 0.02)
    assert moved[1] == set(state.variables)
    head = 'InceptionV3/AuxLogits/'
    assert moved[0] == {name for name in moved[1] if not name.startswith(head) or '/moving_' in name}


# --- From slim's checkpoint to exports ----------------------------------------------------------------------

SIZES = {'inception_v3': 107, 'mobilenet_v1': 32, 'resnet_v1_50': 32}


@pytest.mark.quick('mobilenet_v1')
@pytest.mark.parametrize('name', SIZES)
def test_a_checkpoint_of_slim_is_fine_tuned_evaluated_and_exported(name, digits_dir, train_digits, tmp_path):
    net, size = get_net(name), SIZES[name]
    with zero_weights():
        model = make_model(name, 1001, image_size=size, depth_multiplier=0.125)
    fills = {n: recorded_fill(n, tuple(v.shape), 0.8) for n, v in slim_variables(model).items()}
    prefix = checkpoints.save(str(tmp_path), 1, {n: tf.constant(value) for n, value in fills.items()}, 5)
    asked = {'model_name': name, 'preprocessing_name': 'inception', 'depth_multiplier': 0.125}

    scopes = tuple(f'{net.scope}/{scope.partition("/")[0]}' for scope in net.head)
    run = train_digits(
        tmp_path / 'run',
        **asked,
        train_image_size=size,
        batch_size=4,
        max_number_of_steps=1,
        checkpoint_path=prefix,
        checkpoint_exclude_scopes=scopes,
        trainable_scopes=scopes,
        freeze_batch_norm=True,
    )
    values = saved_values(run.checkpoint_path)
    for variable, value in fills.items():
        assert np.array_equal(values[variable], value) != variable.startswith(scopes), variable

    results = evaluation.evaluate(eval_config(run.checkpoint_path, max_num_batches=1, batch_size=8))
    assert results['recall_at_5'] >= results['accuracy']

    images = np.random.RandomState(0).randint(0, 255, (4, size, size, 3)).astype(np.uint8)
    expected = load_classifier(run.checkpoint_path).probabilities(images)
    path = export(run.checkpoint_path, tmp_path / 'saved', format='saved_model')
    np.testing.assert_allclose(load_classifier(str(path)).probabilities(images), expected, atol=1e-5)
    path = export(run.checkpoint_path, tmp_path / 'net.tflite', format='tflite')
    np.testing.assert_allclose(load_classifier(str(path)).probabilities(images), expected, atol=1e-4)
    with pytest.raises(
        InputError, match=r'(supports only sequential layers|has no operator for Activation).*saved_model'
    ):
        export(run.checkpoint_path, tmp_path / 'net.onnx', format='onnx')


def test_a_checkpoint_without_model_json_names_its_net(tmp_path):
    with zero_weights():
        model = make_model('mobilenet_v1_025', 1001)
    prefix = checkpoints.save(str(tmp_path), 1, {n: v.value for n, v in slim_variables(model).items()}, 5)
    with pytest.raises(InputError, match=r'give --model_name=mobilenet_v1_025$'):
        load_classifier(prefix)
    assert load_classifier(prefix, NetOverrides(model_name='mobilenet_v1_025')).spec.num_classes == 1001
