"""`--plan`: what the model says against rows computed by hand, and what it refuses."""

import re
from pathlib import Path
from typing import Any

import pytest

from configs.benchmark import BenchmarkConfig
from configs.options import make_config, to_flagfile
from configs.training import TrainConfig
from engine.distributed import distribution, joining
from engine.optim.reduction import Reduction
from engine.training import plan, run_dir
from support.errors import InputError
from tests.scripts import run_python

NUMBERS = 1_000_000


def config(**options: Any) -> TrainConfig:
    """Returns the config of a plan: batches of 64, 100 images/s of a device, 10 epochs of 1,280 examples."""
    defaults = {'plan': True, 'plan_images_per_second': 100.0, 'dataset_name': 'synthetic', 'batch_size': 64}
    return make_config(TrainConfig, **{**defaults, 'plan_examples': 1280, 'num_epochs': 10.0, **options})


def planned(**options: Any) -> plan.Plan:
    """Returns its plan for a net of a million numbers."""
    return plan.make_plan(plan.planned_run(config(**options)), NUMBERS)


# Options, seconds of computation and of communication, and bytes that a worker sends. A link of 8 Gbit/s moves a
# gigabyte, and so the gradients, 4 MB, in 4 ms; a bus of 2 GB/s in 2 ms.
SLOW = {'plan_link_gbits': 8.0, 'plan_bus_gbytes': 2.0, 'plan_latency_us': 0.0}
ROWS = [
    ({}, 0.64, 0.0, 0),
    ({'plan_workers': 2}, 0.32, 0.004, 4e6),  # 2 * 1/2 of 4 MB
    ({'plan_workers': 4}, 0.16, 0.006, 6e6),  # 2 * 3/4
    ({'plan_workers': 4, 'plan_latency_us': 50.0}, 0.16, 0.0063, 6e6),  # and 6 messages of 50 us
    ({'plan_workers': 4, 'plan_link_gbits': 16.0}, 0.16, 0.003, 6e6),
    ({'plan_workers': 4, 'gradient_dtype': 'bfloat16'}, 0.16, 0.003, 3e6),
    ({'plan_devices_per_worker': 8}, 0.08, 0.0035, 0),  # 2 * 7/8 of 2 ms
    ({'plan_workers': 2, 'plan_devices_per_worker': 8}, 0.04, 0.0075, 4e6),
    ({'plan_workers': 4, 'gradient_accumulation_steps': 3}, 0.48, 0.006, 6e6),  # summed once for three batches
]


@pytest.mark.parametrize(('options', 'compute', 'communication', 'sent'), ROWS)
def test_a_step_is_what_the_formula_gives(
    options: dict[str, Any], compute: float, communication: float, sent: float
) -> None:
    made = planned(**{**SLOW, **options})
    assert made.compute_seconds == pytest.approx(compute, rel=1e-12)
    assert made.communication_seconds == pytest.approx(communication, rel=1e-12)
    assert made.bytes_sent == sent
    assert made.step_seconds == pytest.approx(compute + communication)
    assert made.efficiency == pytest.approx(compute / (compute + communication))
    assert made.communication_share == pytest.approx(1 - made.efficiency)
    assert made.images_per_second == pytest.approx(made.examples_per_step / (compute + communication))
    assert made.hours == pytest.approx(made.steps * (compute + communication) / 3600)


@pytest.mark.parametrize('gradient_dtype', ['float32', 'bfloat16'])
@pytest.mark.parametrize('workers', [1, 2, 64])
def test_a_worker_of_one_device_sends_what_the_reduction_says(workers: int, gradient_dtype: str) -> None:
    made = planned(plan_workers=workers, gradient_dtype=gradient_dtype)
    assert made.bytes_sent == Reduction(workers, gradient_dtype).bytes_sent(made.gradient_numbers)


@pytest.mark.parametrize(
    ('options', 'steps_per_epoch', 'steps', 'rate', 'warmup_steps'),
    [
        ({}, 20.0, 200, 0.01, 0.0),
        ({'gradient_accumulation_steps': 3}, 1280 / 192, 67, 0.01, 0.0),  # 12,800 / 192 = 66.7
        ({'max_number_of_steps': 150, 'warmup_epochs': 2.5}, 20.0, 150, 0.01, 50.0),
        ({'max_number_of_steps': 250}, 20.0, 200, 0.01, 0.0),
        ({'scale_learning_rate': 'linear', 'learning_rate': 0.4}, 20.0, 200, 0.1, 0.0),  # 64 / 256
        ({'scale_learning_rate': 'sqrt', 'gradient_accumulation_steps': 4}, 5.0, 50, 0.01, 0.0),  # of 256 examples
    ],
)
def test_length_and_learning_rate_are_those_of_training(
    options: dict[str, Any], steps_per_epoch: float, steps: int, rate: float, warmup_steps: float
) -> None:
    made = planned(**options)
    assert (made.steps_per_epoch, made.steps, made.warmup_steps) == (steps_per_epoch, steps, warmup_steps)
    assert made.learning_rate == pytest.approx(rate)


def test_the_embedded_digits_have_a_length_of_their_own(digits_dir: Path) -> None:
    options = {'dataset_name': 'digits', 'dataset_dir': str(digits_dir), 'num_epochs': None, 'plan_examples': None}
    assert planned(**options).steps == 337  # 15 epochs of 1,437 examples, 64 a step: 336.8


def test_a_data_set_that_is_not_at_hand_has_its_classes() -> None:
    chosen = config(dataset_name='imagenet', labels_offset=1, dataset_split_name='train[:90%]')
    dataset = plan.planned_run(chosen).dataset
    assert (dataset.num_classes, dataset.num_examples, dataset.channels) == (1000, 1280, 3)
    narrow = {'model_name': 'lenet', 'depth_multiplier': 1 / 16, 'dataset_name': 'mnist'}
    # LeNet a sixteenth as wide: 5x5x1x2 + 2, 5x5x2x4 + 4, 7x7x4x64 + 64, 64x10 + 10.
    assert plan.count_trainable(plan.planned_run(config(**narrow))) == 52 + 204 + 12608 + 650
    assert plan.count_trainable(plan.planned_run(config(**narrow, trainable_scopes=('LeNet/fc4',)))) == 650


@pytest.mark.full
def test_a_recipe_on_a_cluster(tmp_path: Path) -> None:
    """Its head counts the same 3,910 steps."""
    flags = [
        '--flagfile=configs/alexnet_bn_imagenet_lars_32k.cfg',
        f'--train_dir={tmp_path / "run"}',
        '--plan',
        '--plan_workers=64',
        '--plan_devices_per_worker=8',
        '--plan_images_per_second=2000',
        '--plan_examples=1281167',
        '--launch_workers=2',  # which are not launched: one plan is printed
    ]
    done = run_python('train_image_classifier.py', *flags)
    assert (done.returncode, done.stderr) == (0, '')
    heading, *lines, left_out = done.stdout.splitlines()
    assert heading == 'plan: alexnet_bn on imagenet, split train: 1281167 examples, 62383145 numbers to train'
    rows = dict(re.split(r'  +', line.strip(), maxsplit=1) for line in lines)
    assert rows == {
        'workers': '64 with 8 devices each of 2000 images/s',
        'links': '10 Gbit/s, 50 us',
        'buses': '31.5 GB/s',
        'examples a step': '32768 (64 on each device)',
        'steps an epoch': '39.1',
        'steps': '3910 (100.0 epochs)',
        'learning rate': '32',
        'warm-up steps': '391',
        'bytes sent by a worker each step': '491267267 (float32)',  # 2 * 63/64 * 4 * 62,383,145
        'computation': '0.032 s a step',
        'communication': '0.4132 s a step (92.8%)',  # 0.3930 + 0.0063 over the link, 0.0139 over the bus
        'both': '0.4452 s a step',
        'images/s': '73607',
        'efficiency': '7.2% of 512 devices',
        'time': '0.48 h',
    }
    assert 'not to overlap' in left_out
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (
            {'plan_images_per_second': None},
            '--plan needs --plan_images_per_second, the speed of one device at its share',
        ),
        ({'plan': False}, '--plan_images_per_second=100.0: has no effect without --plan; leave it out'),
        ({'plan_link_gbits': 0.0}, '--plan_link_gbits=0.0: must be greater than 0.0'),
        ({'num_epochs': None}, '--plan: training without --max_number_of_steps or --num_epochs goes on until'),
        ({'plan_workers': 2, 'plan_examples': 1}, 'has 1 examples, fewer than the 2 workers; start fewer'),
        ({'warmup_epochs': 1.0, 'optimizer': 'ftrl'}, '--warmup_epochs=1.0: starts with a learning rate of 0'),
        ({'dataset_name': 'imagenet', 'labels_offset': 1000}, '--labels_offset=1000 leaves 1 of 1001 classes'),
        (
            {'dataset_name': 'imagenet', 'plan_examples': None},
            '--dataset_dir is missing: the folder of the TFRecords of imagenet (only digits and synthetic need none). '
            'Where the data set is not at hand, give --plan_examples',
        ),
    ],
)
def test_what_cannot_be_planned_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        planned(**options)


def test_a_batch_that_is_not_divided_is_refused_as_in_training() -> None:
    with pytest.raises(InputError) as of_training:
        distribution.batch_per_replica(33, replicas=2)
    with pytest.raises(InputError, match=f'^{re.escape(str(of_training.value))}$'):
        planned(batch_size=33, plan_devices_per_worker=2)


def test_nothing_of_a_plan_is_of_the_run() -> None:
    """Neither config.cfg nor what workers must agree on has any of it, and a measurement takes none."""
    chosen = config()
    assert '--plan' not in to_flagfile(chosen, without=run_dir.OF_PROCESS)
    assert 'plan' in run_dir.FREE_GROUPS
    assert not [name for name in joining.facts_of(chosen) if name.startswith('--plan')]
    with pytest.raises(InputError, match=r'^--plan: only train_image_classifier\.py supports it; leave it out$'):
        make_config(BenchmarkConfig, plan=True, plan_images_per_second=1.0)


def test_the_table_of_accumulated_gradients_says_so() -> None:
    run = plan.planned_run(config(gradient_accumulation_steps=4, plan_workers=2))
    table = plan.format_plan(plan.make_plan(run, NUMBERS), run)
    assert re.search(r'examples a step +256 in 4 parts \(32 on each device\)\n', table)
