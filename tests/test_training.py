"""The training loop: slim's recorded steps, repetition and resumption, replicas, every option that reaches a step."""

import dataclasses
import itertools
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from configs.options import flat_options, make_config
from configs.training import TrainConfig
from engine import checkpoints, training
from engine.classifiers.model_spec import ModelSpec
from engine.distributed.cluster import SINGLE_PROCESS
from engine.evaluation.summaries import image_grid
from engine.optim.optimizers import OPTIMIZERS
from engine.optim.schedules import SCHEDULES, make_schedule
from engine.training.actions import Interval
from engine.training.run_dir import OF_PROCESS
from engine.training.setup import open_run, with_default_dataset
from engine.training.state import Position
from engine.training.train import log_plan
from support.errors import InputError
from tests.runs import (
    STILL,
    assert_same_values,
    checkpoint_files,
    data_service,
    files,
    saved_values,
    small_config,
    summaries,
    weights_of,
)

# ------------------------------------------------------------------------ the steps that slim has recorded


@pytest.mark.full
def test_steps_are_slims(shared_path):
    shared_path('goldens/train_nc10_momentum.npz')
    # The kernels that TensorFlow 1.15 had: none of oneDNN's but products of matrices, and these with AVX.
    instructions = {
        'TF_ENABLE_ONEDNN_OPTS': '0',
        'ONEDNN_MAX_CPU_ISA': 'AVX',
        'XLA_FLAGS': '--xla_cpu_max_isa=AVX',
    }
    command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', 'tests/recorded_steps.py']
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run(
        command, cwd=root, env={**os.environ, **instructions}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert '8 passed' in done.stdout


# ------------------------------------------------------------------------ the same again

AUGMENTED = {
    'preprocessing_name': 'inception',
    'train_image_size': 16,
    'optimizer': 'rmsprop',
    'learning_rate': 0.003,
    'moving_average_decay': 0.9,
    'label_smoothing': 0.1,
}


@pytest.mark.full
def test_seed_alone_decides(train_digits, tmp_path):
    runs = [
        train_digits(tmp_path / name, max_number_of_steps=12, seed=seed, **AUGMENTED).checkpoint_path
        for name, seed in (('first', 7), ('again', 7), ('other', 8))
    ]
    assert_same_values(runs[0], runs[1])
    values, others = saved_values(runs[0]), saved_values(runs[2])
    for name, value in values.items():
        if name.endswith('weights'):
            assert not np.array_equal(value, others[name]), name


@pytest.mark.quick('inception')
@pytest.mark.parametrize(
    'options',
    [
        AUGMENTED,
        {'model_name': 'cifarnet', 'train_image_size': 16, 'learning_rate_decay_type': 'polynomial'},
        {'optimizer': 'adam', 'warmup_epochs': 0.2, 'num_epochs_per_decay': 0.1, 'clip_gradient_norm': 1.0},
    ],
    ids=['inception', 'cifarnet', 'adam'],
)
def test_a_run_in_two_parts_is_the_run_in_one(train_digits, tmp_path, options):
    whole = train_digits(tmp_path / 'whole', max_number_of_steps=17, **options)
    first = train_digits(tmp_path / 'parts', max_number_of_steps=6, **options)
    assert checkpoints.checkpoint_step(first.checkpoint_path) == 6
    second = train_digits(tmp_path / 'parts', max_number_of_steps=17, **options)
    assert second.step == 17
    assert_same_values(second.checkpoint_path, whole.checkpoint_path)
    values = saved_values(second.checkpoint_path)
    assert values['global_step'] == 17
    assert values['images_seen'] == 17 * 32


@pytest.mark.full
def test_looking_at_a_run_does_not_change_it(train_digits, tmp_path):
    """Nor do the saves and log lines, which divide it into calls of fewer steps."""
    looks = {
        'eval_every_steps': 4,
        'save_summaries_steps': 3,
        'summarize_images': True,
        'summarize_histograms': True,
        'save_interval_steps': 2,
        'log_every_n_steps': 7,
    }
    watched = train_digits(tmp_path / 'watched', max_number_of_steps=9, **looks, **AUGMENTED)
    alone = train_digits(tmp_path / 'alone', max_number_of_steps=9, **AUGMENTED)
    assert_same_values(watched.checkpoint_path, alone.checkpoint_path)


@pytest.mark.full
def test_batch_size_may_change_between_parts(train_digits, tmp_path):
    train_digits(tmp_path, max_number_of_steps=3, batch_size=16)
    result = train_digits(tmp_path, max_number_of_steps=5, batch_size=8)
    assert saved_values(result.checkpoint_path)['images_seen'] == 3 * 16 + 2 * 8


def test_last_step_reached_says_so_and_does_nothing(trained, train_digits, tmp_path, caplog):
    train_dir = shutil.copytree(learning_dir(trained), tmp_path / 'run')
    before = files(train_dir)
    with caplog.at_level('INFO', logger='absl'):
        result = train_digits(train_dir, max_number_of_steps=300, moving_average_decay=0.9)
    assert result.step == 300
    assert result.results is None
    assert 'nothing to do' in caplog.text
    assert 'has reached the last step, 300' in caplog.text
    assert files(train_dir) == before


def learning_dir(result: training.TrainResult) -> str:
    """Returns the train_dir of a run."""
    return result.checkpoint_path.rpartition('/')[0]


# ------------------------------------------------------------------------ what is refused before it begins

BN = {'model_name': 'alexnet_bn', 'train_image_size': 67, 'depth_multiplier': 1 / 16}
SYNCHRONISED = {**BN, 'num_clones': 2, 'sync_batch_norm': True}
AT_ONCE: list[tuple[dict, str]] = [
    ({'num_clones': 2, 'batch_size': 33}, '--batch_size=33: must be a multiple of the 2 replicas'),
    ({'num_clones': 3, 'batch_size': 33}, '--num_clones=3: TensorFlow has started with 2 CPU devices'),
    (
        {'num_clones': 2, 'all_reduce': 'nccl'},
        '^--all_reduce=nccl needs GPUs, and there are none; leave it out$',
    ),
    (
        {**SYNCHRONISED, 'gradient_accumulation_steps': 2},
        '--gradient_accumulation_steps=2: cannot be combined with --sync_batch_norm over several replicas; leave one',
    ),
    (
        {'batch_size': 33, 'mixup_alpha': 0.2},
        '^--batch_size=33: --mixup_alpha and --cutmix_alpha mix pairs, and 33 examples on a replica are odd; make them '
        'even$',
    ),
    ({'batch_size': 6, 'cutmix_alpha': 1.0, 'num_clones': 2}, 'mix pairs, and 3 examples on a replica are odd; make'),
    (
        {'freeze_batch_norm': True},
        '^--freeze_batch_norm freezes layers outside --trainable_scopes: give --trainable_scopes too$',
    ),
    ({'channels': 3, 'use_grayscale': True}, '--channels=3 contradicts --use_grayscale; leave one of the'),
    ({'channels': 1, 'preprocessing_name': 'vgg'}, 'vgg preprocessing subtracts three means and cannot make gray'),
]
ONCE_THE_NET_IS_MADE: list[tuple[dict, str]] = [
    (
        {**SYNCHRONISED, 'xla': 'on'},
        '--xla=on: XLA cannot compile --sync_batch_norm over several replicas; leave one of them out',
    ),
    (
        {'model_name': 'alexnet_v2', 'train_image_size': 259, 'depth_multiplier': 1 / 16},
        'logits at 3x3 positions .* give --global_pool, which averages over them',
    ),
    (
        {'global_pool': True},
        'lenet takes neither global_pool .* leave --global_pool out. Nets that take them: alexnet_v2, ',
    ),
    ({'trainable_scopes': ('AlexNet',)}, '--trainable_scopes=AlexNet: matches no variable; there are LeNet/conv1/we'),
    ({'trainable_scopes': ('a(',)}, r'--trainable_scopes=a\(: not a regular expression'),
    *(
        (
            {**net, 'freeze_batch_norm': True, 'trainable_scopes': scopes},
            f'^--freeze_batch_norm: {name} has no batch normalisation outside --trainable_scopes; leave it out$',
        )
        for name, net, scopes in (('LeNet', {}, ('LeNet/fc4',)), ('alexnet_bn', BN, ('alexnet_bn',)))
    ),
    ({'best_metric': 'recall_at_3', 'recall_at': (2,)}, 'must be one of accuracy, recall_at_2, none'),
    ({'early_stopping_patience': 3}, '--early_stopping_patience=3: counts evaluations; give --eval_every_epochs'),
    (
        {'early_stopping_patience': 3, 'eval_every_steps': 1, 'best_metric': 'none'},
        '--early_stopping_patience=3: needs a --best_metric: accuracy, recall_at_5',
    ),
]


@pytest.mark.parametrize(
    ('options', 'message', 'has_folder'),
    [*((*row, False) for row in AT_ONCE), *((*row, True) for row in ONCE_THE_NET_IS_MADE)],
)
def test_what_cannot_be_trained_is_refused(train_digits, tmp_path, options, message, has_folder):
    run = tmp_path / 'run'
    with pytest.raises(InputError, match=message):
        train_digits(run, max_number_of_steps=1, **options)
    assert run.exists() == has_folder
    assert not list(run.glob('model.ckpt*'))


# ------------------------------------------------------------------------ every option that reaches a step

LEARNING_RATES = {
    'adadelta': 0.3,
    'adagrad': 0.01,
    'adam': 0.05,
    'ftrl': 0.01,
    'momentum': 0.03,
    'rmsprop': 0.01,
    'sgd': 0.1,
    'lars': 0.1,
    'lamb': 0.01,
}


def losses_of(result: training.TrainResult) -> np.ndarray:
    """Returns the total loss before each step of a run that was made with `save_summaries_steps=1`."""
    by_step = summaries(learning_dir(result))['losses/total_loss']
    assert list(by_step) == list(range(1, result.step + 1))
    return np.array(list(by_step.values()))


def assert_learns(result: training.TrainResult) -> None:
    losses = losses_of(result)
    assert np.isfinite(losses).all()
    assert losses[-10:].mean() < losses[0] - 0.03


def test_every_optimizer_has_a_rate():
    assert set(LEARNING_RATES) == set(OPTIMIZERS)
    assert len(SCHEDULES) <= len(OPTIMIZERS)  # so that each meets one


@pytest.mark.quick('rmsprop-exponential')
@pytest.mark.parametrize(('optimizer', 'schedule'), list(zip(OPTIMIZERS, itertools.cycle(SCHEDULES), strict=False)))
def test_every_optimizer_and_schedule_learns(train_digits, tmp_path, optimizer, schedule):
    options = {
        'optimizer': optimizer,
        'learning_rate': LEARNING_RATES[optimizer],
        'lars_eta': 0.1,  # a hundred times that of 90 epochs, for 40 steps
        'learning_rate_decay_type': schedule,
        'learning_rate_boundaries': (0.5,),
        'num_epochs_per_decay': 0.5,
        'warmup_epochs': 0.0 if optimizer == 'ftrl' else 0.05,  # ftrl divides by the rate, which starts at 0
    }
    result = train_digits(tmp_path, max_number_of_steps=40, save_summaries_steps=1, **options)
    assert_learns(result)
    expected = make_schedule(small_config('', '', **options).schedule, 1437 / 32, 40)
    for step, rate in summaries(tmp_path)['learning_rate'].items():
        np.testing.assert_allclose(rate, expected(tf.constant(step - 1, tf.float64)), rtol=1e-6)


@pytest.fixture(scope='module')
def plain_losses(tmp_path_factory, train_digits) -> np.ndarray:
    """The losses of 30 steps in float32, without XLA."""
    return losses_of(train_digits(tmp_path_factory.mktemp('plain'), max_number_of_steps=30, save_summaries_steps=1))


@pytest.mark.full
@pytest.mark.parametrize(
    'options',
    [{'mixed_precision': 'bfloat16'}, {'mixed_precision': 'float16'}, {'xla': 'on'}],
    ids=['bfloat16', 'float16', 'xla'],
)
def test_other_arithmetic_stays_near(plain_losses, train_digits, tmp_path, options):
    other = train_digits(tmp_path, max_number_of_steps=30, save_summaries_steps=1, **options)
    np.testing.assert_allclose(losses_of(other), plain_losses, rtol=1e-4 if 'xla' in options else 0.1)
    assert_learns(other)
    values = saved_values(other.checkpoint_path)
    assert {value.dtype for name, value in values.items() if name.startswith('LeNet')} == {np.dtype(np.float32)}


# ------------------------------------------------------------------------ where weights come from


@pytest.mark.quick('True')
@pytest.mark.parametrize('by_folder', [True, False])
def test_fine_tuning_starts_at_the_weights_given(trained, train_digits, tmp_path, by_folder):
    path = learning_dir(trained) if by_folder else trained.checkpoint_path
    options = {**STILL, 'checkpoint_path': path, 'checkpoint_exclude_scopes': ('LeNet/fc4', 'LeNet/conv1/b')}
    values = saved_values(train_digits(tmp_path / 'tuned', moving_average_decay=0.5, **options).checkpoint_path)
    fresh = weights_of(train_digits(tmp_path / 'fresh', **STILL).checkpoint_path)
    expected, before = weights_of(trained.checkpoint_path), saved_values(trained.checkpoint_path)
    excluded = {'LeNet/fc4/weights', 'LeNet/fc4/biases', 'LeNet/conv1/biases'}
    for name in expected:
        np.testing.assert_array_equal(values[name], (fresh if name in excluded else expected)[name], err_msg=name)
        # As in slim: not the averages of the checkpoint; those of the new run begin at the weights.
        np.testing.assert_array_equal(values[f'{name}/ExponentialMovingAverage'], values[name], err_msg=name)
        assert not np.array_equal(before[f'{name}/ExponentialMovingAverage'], expected[name]), name
    assert values['global_step'] == 1
    assert values['images_seen'] == 32
    assert not np.array_equal(values['LeNet/fc4/weights'], expected['LeNet/fc4/weights'])


def test_fine_tuning_from_another_net(trained, train_digits, tmp_path, caplog):
    options = {**STILL, 'model_name': 'cifarnet', 'train_image_size': 16, 'checkpoint_path': trained.checkpoint_path}
    with pytest.raises(InputError, match=r'CifarNet/conv1/weights +5x5x3x16 +missing'):
        train_digits(tmp_path, **options)
    with pytest.raises(InputError, match='has none of the variables of the net'):
        train_digits(tmp_path, ignore_missing_vars=True, **options)


def test_a_run_that_goes_on_ignores_checkpoint_path(trained, train_digits, tmp_path, caplog):
    train_digits(tmp_path, max_number_of_steps=2, moving_average_decay=0.5)
    with caplog.at_level('INFO', logger='absl'):
        result = train_digits(
            tmp_path, max_number_of_steps=3, moving_average_decay=0.5, checkpoint_path=trained.checkpoint_path
        )
    assert result.step == 3
    assert '--checkpoint_path is ignored' in caplog.text


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'depth_multiplier': 0.5}, r'depth_multiplier +0\.25 +0\.5'),
        ({'train_image_size': 12}, 'image_size +8 +12(.|\n)*with --force_resume, which needs only'),
        (
            {'model_name': 'cifarnet', 'train_image_size': 16},
            r'model_name +lenet +cifarnet\n +image_size +8 +16\n(.|\n)*another --train_dir$',
        ),
        ({'optimizer': 'adam'}, 'optimizer +momentum +adam'),
        (
            {'optimizer': 'adam', 'force_resume': True},
            'model.ckpt-300 cannot be resumed: it has the slots of --optimizer=momentum, not of adam',
        ),
        ({'seed': 1}, 'holds a run that differs:\n +there +now\n +seed +0 +1\n'),
        (
            {'dataset_split_name': 'train[:50%]'},
            r'dataset_split_name +train +train\[:50%\]\n +examples +1437 \(.{8}\) +718',
        ),
        ({'random_flip': False}, 'random_flip +True +False'),
    ],
)
def test_a_run_goes_on_only_with_its_own_net(trained, train_digits, tmp_path, options, message):
    train_dir = shutil.copytree(learning_dir(trained), tmp_path / 'run')
    before = files(train_dir)
    with pytest.raises(InputError, match=message):
        train_digits(train_dir, max_number_of_steps=301, moving_average_decay=0.9, **options)
    assert files(train_dir) == before


# ------------------------------------------------------------------------ values that are not finite


@pytest.mark.quick('3e+38*')
@pytest.mark.parametrize(
    ('rate', 'message'),
    [
        # The first call of a process makes one step, step 3; the next one the rest.
        (1e12, r'the loss \((nan|inf)\) is not finite at step [4-8];'),
        (3e38, r'the loss \((nan|inf)\) is not finite at step 4;'),
    ],
)
def test_training_stops_when_the_loss_is_not_finite(train_digits, tmp_path, rate, message):
    good = train_digits(tmp_path, max_number_of_steps=2)
    before = checkpoint_files(tmp_path)
    with pytest.raises(InputError, match=message) as error:
        train_digits(tmp_path, max_number_of_steps=8, learning_rate=rate)
    assert f'the last good checkpoint is {good.checkpoint_path}.' in str(error.value)
    assert checkpoint_files(tmp_path) == before
    assert checkpoints.latest_checkpoint(str(tmp_path)) == good.checkpoint_path
    assert train_digits(tmp_path, max_number_of_steps=4).step == 4


def test_weights_that_are_not_finite_are_not_saved(train_digits, tmp_path):
    with pytest.raises(
        InputError, match=r'variable LeNet/\S+ is not finite at step 1; the last good checkpoint is none'
    ):
        train_digits(tmp_path, max_number_of_steps=1, optimizer='momentum', learning_rate=3e38, weight_decay=1e3)
    assert checkpoints.latest_checkpoint(str(tmp_path)) is None


# ------------------------------------------------------------------------ length


@pytest.mark.parametrize(
    ('name', 'options', 'step', 'images_seen', 'expected'),
    [
        ('digits', {}, 0, 0, math.ceil(15 * 1437 / 32)),
        ('digits', {}, 600, 600 * 32, math.ceil(15 * 1437 / 32) - 600),
        ('digits', {'max_number_of_steps': 5000}, 0, 0, 5000),
        ('digits', {'num_epochs': 2.0}, 0, 0, math.ceil(2 * 1437 / 32)),
        ('mnist', {}, 0, 0, math.inf),
        ('mnist', {}, 9000, 9000 * 32, math.inf),
        ('mnist', {'max_number_of_steps': 100}, 40, 40 * 32, 60),
        ('mnist', {'max_number_of_steps': 100}, 100, 3200, 0),
        ('mnist', {'max_number_of_steps': 100}, 101, 3232, 0),
        ('mnist', {'num_epochs': 1.0, 'batch_size': 1437}, 0, 0, 1),
        ('mnist', {'num_epochs': 1.0, 'batch_size': 1436}, 0, 0, 2),
        ('mnist', {'num_epochs': 0.001}, 0, 0, 1),
        ('mnist', {'num_epochs': 3.0, 'batch_size': 479}, 0, 0, 9),
        ('mnist', {'num_epochs': 1.0, 'max_number_of_steps': 30}, 0, 0, 30),
        ('mnist', {'num_epochs': 1.0, 'max_number_of_steps': 100}, 0, 0, 45),
        ('mnist', {'num_epochs': 1.0, 'batch_size': 8}, 20, 20 * 32, math.ceil((1437 - 640) / 8)),
    ],
)
def test_length(digits_dir, name, options, step, images_seen, expected):
    config = make_config(TrainConfig, dataset_name='digits', dataset_dir=str(digits_dir), **options)
    run = open_run(config, SINGLE_PROCESS)
    run = dataclasses.replace(run, dataset=dataclasses.replace(run.dataset, name=name))
    assert run.steps_left(Position(step, images_seen)) == expected


def test_no_length_is_announced(digits_dir, caplog):
    run = open_run(small_config(digits_dir, ''), SINGLE_PROCESS)
    with caplog.at_level('INFO', logger='absl'):
        log_plan(run, math.inf)
    assert 'training runs until you stop it' in caplog.text


@pytest.mark.parametrize(
    ('options', 'dataset_name', 'eval_every_epochs'),
    [
        ({}, 'digits', 5.0),
        ({'eval_every_steps': 7}, 'digits', 0.0),
        ({'eval_every_epochs': 2.0}, 'digits', 2.0),
        ({'dataset_dir': '/data'}, 'imagenet', 0.0),
        ({'dataset_name': 'digits'}, 'digits', 0.0),
        ({'dataset_name': 'mnist', 'dataset_dir': '/data'}, 'mnist', 0.0),
    ],
)
def test_default_dataset(options, dataset_name, eval_every_epochs):
    config = with_default_dataset(make_config(TrainConfig, **options))
    assert config.data.dataset_name == dataset_name
    assert config.evaluation.eval_every_epochs == eval_every_epochs


# ------------------------------------------------------------------------ between steps


@pytest.mark.parametrize(
    ('steps', 'due'),
    [
        (0, []),
        (1, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (3, [3, 6, 9]),
        (2.5, [3, 5, 8]),
        (0.4, [1, 2, 3, 4, 5, 6, 7, 8, 9]),
        (10, []),
        (1437 / 320, [5, 9]),
    ],
)
def test_interval_by_steps(steps, due):
    interval = Interval(steps=steps)
    assert [step for step in range(1, 10) if interval.is_due(step)] == due
    for step in range(10):
        later = [at for at in due if at > step]
        if later:
            assert interval.next_step(step) == later[0]
        else:
            assert interval.next_step(step) >= 10
    assert Interval(steps=steps).next_step(0) == (due[0] if due else steps or math.inf)


def test_every_epoch_has_its_step_however_long_the_run():
    steps_per_epoch = 1437 / 32
    interval = Interval(steps=steps_per_epoch)
    step: float = 0
    for epoch in range(1, 3000):
        step = interval.next_step(int(step))
        assert step == math.ceil(epoch * steps_per_epoch - 1e-9)


def test_interval_by_time(monkeypatch):
    now = [0.0]
    monkeypatch.setattr('time.monotonic', lambda: now[0])
    interval = Interval(steps=100, seconds=10)
    due = []
    for step, now[0] in ((1, 9.0), (2, 10.0), (3, 19.0), (100, 19.5), (101, 29.0), (102, 29.5)):
        due.append(interval.is_due(step))
    assert due == [False, True, False, True, False, True]
    assert Interval(seconds=10).next_step(5) == math.inf


def test_saves_and_evaluations_come_when_asked_for(train_digits, tmp_path, capsys):
    result = train_digits(tmp_path, max_number_of_steps=9, save_interval_steps=4, eval_every_epochs=0.1)
    assert [checkpoints.checkpoint_step(path) for path in checkpoints.list_checkpoints(str(tmp_path))] == [4, 8, 9]
    assert list(summaries(tmp_path / 'eval_test')['accuracy']) == [5, 9]
    assert capsys.readouterr().out.count('evaluated 360 of 360') == 2
    assert result.results is not None
    assert result.results['num_examples'] == 360
    assert result.results['step'] == 9


# ------------------------------------------------------------------------ what is shown and written

SCALARS = (
    'losses/total_loss',
    'losses/cross_entropy',
    'losses/regularization_loss',
    'accuracy',
    'learning_rate',
    'images_per_second',
    'data_wait_share',
)


def test_log_line_has_what_one_wants_to_know(train_digits, tmp_path, caplog):
    with caplog.at_level('INFO', logger='absl'):
        train_digits(tmp_path, max_number_of_steps=25, log_every_n_steps=10)
    lines = [line for line in caplog.messages if line.startswith('global step ')]
    assert [line.split()[2] for line in lines] == ['1:', '10:', '20:', '25:']
    for part in ('loss = ', 'sec/step), learning rate 0.03, ', ' images/s, waiting for data ', '%'):
        assert part in lines[1]
    shares = re.findall(r', accuracy ([\d.]+), ', '\n'.join(lines))
    assert len(shares) == 4
    assert all(0 <= float(share) <= 1 for share in shares)
    assert f'saved {tmp_path}/model.ckpt-25' in caplog.text


def test_what_happens_before_the_first_log_line_is_said(train_digits, tmp_path, caplog):
    with caplog.at_level('INFO', logger='absl'):
        train_digits(tmp_path, max_number_of_steps=30)
    lines = [line for line in caplog.messages if not line.startswith(('decoded ', 'index'))]
    assert lines[0] == 'training lenet on 1 CPU: opening digits, then building the net'
    first = next(number for number, line in enumerate(lines) if line.startswith('global step 1: '))
    assert lines[first - 2] == 'compiling the first step, which may take a minute'
    assert re.fullmatch(r'the first step took [\d.]+ s, compilation included', lines[first - 1])
    # A time that is left would be one of compilations.
    assert ' left' not in lines[first]
    assert re.search(r', \d+ s left$', lines[first + 1])


@pytest.mark.full
def test_accuracy_is_that_of_the_training_batches(train_digits, tmp_path):
    """Of a rate of zero, and without dropout, every epoch has that of the same weights over the split."""
    options = {'learning_rate': 0.0, 'batch_size': 479, 'dropout_keep_prob': 1.0, 'eval_split_name': 'train'}
    result = train_digits(tmp_path, max_number_of_steps=3, log_every_n_steps=1, save_summaries_steps=1,
                          eval_every_steps=3, **options)  # fmt: skip
    found = summaries(tmp_path)
    measured = list(found['accuracy'].values())
    assert np.mean(measured) == pytest.approx(result.results['accuracy'], abs=1e-6)
    assert np.mean(list(found['losses/cross_entropy'].values())) == pytest.approx(result.results['loss'], rel=1e-5)
    assert summaries(tmp_path / 'eval_train')['losses/cross_entropy'][3] == pytest.approx(result.results['loss'])


@pytest.mark.quick('options0-*')
@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        ({}, [1, 4, 8, 9]),
        ({'save_summaries_steps': 5}, [1, 4, 5, 8, 9]),
        ({'save_summaries_secs': 0}, None),
        ({'log_every_n_steps': 100}, [1, 9]),
    ],
)
def test_scalars_come_with_the_log_lines(train_digits, tmp_path, options, expected):
    options = {'log_every_n_steps': 4, 'save_summaries_secs': 600, **options}
    train_digits(tmp_path, max_number_of_steps=9, **options)
    found = summaries(tmp_path)
    assert set(found) == set(SCALARS if expected else ())
    assert bool(list(tmp_path.glob('events*'))) == bool(expected)
    for tag in found:
        assert list(found[tag]) == expected, tag


@pytest.mark.full
def test_summaries_on_request(train_digits, tmp_path):
    train_digits(
        tmp_path, max_number_of_steps=4, save_summaries_steps=2, summarize_histograms=True, summarize_images=True
    )
    found = summaries(tmp_path)
    for tag in SCALARS:
        assert list(found[tag]) == [1, 2, 4], tag  # the first log line has them too
    np.testing.assert_allclose(
        found['losses/total_loss'][4],
        found['losses/cross_entropy'][4] + found['losses/regularization_loss'][4],
        rtol=1e-6,
    )
    assert 0 <= found['data_wait_share'][4] <= 1
    assert found['training_images'][2][2] != found['training_images'][4][2]  # those of the next step
    width, height, png = found['training_images'][2]
    assert (int(width), int(height)) == (6 * 8, 6 * 8)
    grid = tf.io.decode_png(png).numpy()
    assert grid[:40].std() > 10
    assert not grid[40:, 16:].any()  # 32 images in a grid of 36
    assert {'LeNet/conv1/weights', 'activations/conv1', 'activations/Predictions'} <= set(found)
    assert found['LeNet/conv1/weights'][2][:, 2].sum() == 5 * 5 * 8
    assert 0 <= found['sparsity/conv1'][2] <= 1


@pytest.mark.parametrize(('count', 'rows', 'columns'), [(1, 1, 1), (2, 1, 2), (5, 2, 3), (64, 8, 8)])
def test_image_grid(count, rows, columns):
    images = np.arange(1, count + 1, dtype=np.float32)[:, None, None, None] * np.ones((1, 2, 3, 1), np.float32)
    grid = image_grid(images)
    assert grid.shape == (rows * 2, columns * 3, 1)
    for i in range(rows * columns):
        row, column = divmod(i, columns)
        cell = grid[row * 2 : row * 2 + 2, column * 3 : column * 3 + 3]
        assert (cell == (i + 1 if i < count else 0)).all()


OTHER_VALUES = {
    'learning_rate_boundaries': (1.5, 2.0),
    'trainable_scopes': ('LeNet/fc4', 'LeNet/fc3'),
    'recall_at': (1, 3),
    'summarize_images': True,
    'ignore_missing_vars': True,
    'opt_epsilon': 1e-07,
    'learning_rate': 0.1 + 0.2,
    'moving_average_decay': 0.5,
    'seed': 3,
}


def test_config_file_repeats_the_run(train_digits, digits_dir, tmp_path, parse):
    config = small_config(digits_dir, tmp_path, max_number_of_steps=1, **OTHER_VALUES)
    training.train(config)
    path = tmp_path / 'config.cfg'
    assert parse(TrainConfig, f'--flagfile={path}') == config
    written = {line.lstrip('-').removeprefix('no').partition('=')[0] for line in path.read_text().splitlines()}
    of_run = {name: option for name, option in flat_options(TrainConfig).items() if option.group not in OF_PROCESS}
    unset = {name for name, option in of_run.items() if option.default in (None, ())}
    named = {name.removeprefix('no') for name in of_run}
    assert written >= named - unset
    assert written <= named


def test_model_file_repeats_the_net(trained, digits_dir):
    spec = ModelSpec.load(learning_dir(trained))
    assert spec == ModelSpec(
        model_name='lenet',
        num_classes=10,
        image_size=8,
        channels=1,
        preprocessing_name='lenet',
        depth_multiplier=0.25,
        labels_offset=0,
        use_grayscale=False,
        dataset_name='digits',
        dataset_dir=str(digits_dir),
        label_names=tuple('0123456789'),
    )


@pytest.mark.parametrize('name', ['file', 'file/below', 'run[1]'])
def test_train_dir_that_cannot_be_used(train_digits, tmp_path, name):
    (tmp_path / 'file').write_text('')
    with pytest.raises(InputError, match=re.escape(f'--train_dir={tmp_path / name}: ')):
        train_digits(tmp_path / name, max_number_of_steps=1)


def test_a_refused_option_leaves_the_run_as_it_was(trained, train_digits):
    train_dir = Path(trained.checkpoint_path).parent
    before = {path: path.read_bytes() for path in train_dir.iterdir() if path.is_file()}
    for options in ({'learning_rate_decay_type': 'cosin'}, {'eval_every_steps': 1, 'eval_split_name': 'tset'}):
        with pytest.raises(InputError, match=r"unknown learning_rate_decay_type 'cosin'|--eval_split_name=tset"):
            train_digits(train_dir, max_number_of_steps=400, moving_average_decay=0.9, **options)
    assert {path: path.read_bytes() for path in train_dir.iterdir() if path.is_file()} == before


@pytest.mark.full
def test_cosine_ends_at_its_end_after_a_change_of_batch_size(train_digits, tmp_path, caplog):
    options = {'learning_rate_decay_type': 'cosine', 'end_learning_rate': 0.001, 'log_every_n_steps': 1}
    train_digits(tmp_path, batch_size=64, max_number_of_steps=4, **options)
    with caplog.at_level('INFO', logger='absl'):
        train_digits(tmp_path, batch_size=32, max_number_of_steps=8, **options)
    rates = [float(text) for text in re.findall(r'learning rate ([\d.e-]+)', caplog.text)]
    assert len(rates) == 4
    assert rates == sorted(rates, reverse=True)
    assert 0.001 < rates[-1] < rates[0]


# ------------------------------------------------------------------------ where the batches come from


@pytest.mark.full
def test_a_data_service_does_not_change_the_weights(train_digits, tmp_path):
    with data_service() as address:
        served = train_digits(tmp_path / 'served', max_number_of_steps=6, data_service=address)
    plain = train_digits(tmp_path / 'plain', max_number_of_steps=6)
    assert_same_values(served.checkpoint_path, plain.checkpoint_path)


@pytest.mark.parametrize(
    ('cache', 'message'),
    [
        ('auto', '--data_service=grpc://localhost:1: no dispatcher can be reached'),
        ('memory', '--cache=memory: --data_service decodes elsewhere; leave one of them out'),
    ],
)
def test_batches_that_cannot_come(train_digits, tmp_path, cache, message):
    with pytest.raises(InputError, match=message):
        train_digits(tmp_path, max_number_of_steps=2, data_service='grpc://localhost:1', cache=cache)
    assert not checkpoint_files(tmp_path)


@pytest.mark.full
@pytest.mark.parametrize('num_clones', [1, 2])
@pytest.mark.parametrize('place', ['device', 'host'])
def test_synthetic_images_train(train_digits, tmp_path, place, num_clones):
    result = train_digits(
        tmp_path,
        dataset_name='synthetic',
        synthetic_images=place,
        devices='cpu',
        num_clones=num_clones,
        batch_size=8,
        max_number_of_steps=3,
        save_summaries_steps=1,
    )
    losses = summaries(tmp_path)['losses/cross_entropy']
    # One batch again and again: the loss falls from that of guessing among 1001 classes.
    assert losses[1] == pytest.approx(np.log(1001), abs=0.5)
    assert losses[3] < losses[1]
    assert result.step == 3


@pytest.mark.full
def test_part_of_a_split_is_held_out(train_digits, tmp_path, caplog):
    with caplog.at_level('INFO', logger='absl'):
        result = train_digits(
            tmp_path,
            dataset_split_name='train[:90%]',
            eval_split_name='train[90%:]',
            max_number_of_steps=4,
            eval_every_steps=4,
        )
    assert 'split train[:90%]: 1293 examples' in caplog.text
    assert result.results['num_examples'] == 1437 - 1293
    assert (tmp_path / 'eval_train_90pct-').is_dir()
