"""Flags without effect beside others: the table against what optimizers, schedules, preprocessings and nets read."""

import re
from pathlib import Path
from typing import Any, cast

import pytest
import tensorflow as tf

from configs import names
from configs.benchmark import BenchmarkConfig
from configs.conversion import ConvertConfig
from configs.evaluation import EvalConfig
from configs.export import ExportConfig
from configs.options import flat_options, flat_values, from_flagfile, make_config, to_flagfile
from configs.prediction import PredictConfig
from configs.training import AugmentOptions, OptimizerOptions, ScheduleOptions, TrainConfig
from configs.unread import READERS, With, advice, unread
from engine.optim.optimizers import OPTIMIZERS
from engine.optim.schedules import SCHEDULES
from export.export_factory import FORMATS
from nets.layers import BatchNormalization
from nets.nets_factory import NETS, make_model
from preprocessing.preprocessing_factory import PREPROCESSINGS
from tests.chains import CHAINS
from tests.scripts import ROOT, SCRIPTS, run_python

TRAIN = READERS[TrainConfig]


@pytest.mark.parametrize('config_class', [config for config, _ in SCRIPTS.values()])
def test_every_option_is_in_the_table(config_class: type) -> None:
    assert set(READERS[config_class]) == set(flat_options(config_class))


class Recorder:
    """Options that note which of them are read."""

    def __init__(self, options: Any):
        self._options = options
        self.read: set[str] = set()

    def __getattr__(self, name: str) -> Any:
        self.read.add(name)
        return getattr(self._options, name)


def in_table(**values: Any) -> set[str]:
    """Returns the options of training that the table says are read with these values."""
    seen = {**flat_values(TrainConfig()), **values}
    return {name for name, reader in TRAIN.items() if reader is None or reader.reads(seen)}


@pytest.mark.parametrize('name', OPTIMIZERS)
def test_optimizers_read_what_the_table_says(name: str) -> None:
    recorder = Recorder(OptimizerOptions(optimizer=name))
    optimizer = OPTIMIZERS[name](cast(OptimizerOptions, recorder))
    variables = {'net/fc/weights': tf.Variable([1.0, 2.0])}
    optimizer.build(variables, {'net/fc/weights': 0.1})
    optimizer.apply({'net/fc/weights': tf.constant([0.1, 0.2])}, tf.constant(0.01))
    options = set(OptimizerOptions.__dataclass_fields__) - {'optimizer', 'gradient_dtype'}
    assert recorder.read & options == in_table(optimizer=name) & options


@pytest.mark.parametrize('name', SCHEDULES)
def test_schedules_read_what_the_table_says(name: str) -> None:
    recorder = Recorder(ScheduleOptions(learning_rate_decay_type=name, learning_rate_boundaries=(1.0,)))
    SCHEDULES[name](cast(ScheduleOptions, recorder), 10.0, 100)(tf.constant(3))
    others = {'learning_rate_decay_type', 'scale_learning_rate', 'scale_learning_rate_from', 'warmup_epochs'}
    options = set(ScheduleOptions.__dataclass_fields__) - others
    assert recorder.read & options == in_table(learning_rate_decay_type=name) & options


@pytest.mark.parametrize('name', names.PREPROCESSING_FAMILIES)
def test_preprocessings_read_what_the_table_says(name: str) -> None:
    recorder = Recorder(AugmentOptions())
    preprocessing = PREPROCESSINGS[name](32, 3, 3, cast(AugmentOptions, recorder))
    seed = tf.constant([1, 2], tf.int64)
    png = tf.io.encode_png(tf.zeros([40, 40, 3], tf.uint8))
    image = preprocessing.host_train(png, seed, tf.constant([[0.0, 0.0, 1.0, 1.0]]))
    preprocessing.device_train(image[tf.newaxis], preprocessing.make_draws(seed, 1))
    options = {'random_flip', 'min_crop_area', 'color_distortion', 'use_bounding_boxes'}
    assert recorder.read & options == in_table(preprocessing_name=name) & options


def test_names_of_nets_and_families_are_those_of_the_factories() -> None:
    assert {name: net.preprocessing for name, net in NETS.items()} == names.PREPROCESSING_OF_NET
    assert {name for name, net in NETS.items() if net.fully_convolutional} == set(names.POOLING_NETS)
    normalising = {
        name
        for name in CHAINS
        if any(isinstance(layer, BatchNormalization) for layer in make_model(name, 2, depth_multiplier=1 / 16).layers)
    }
    assert normalising == set(names.BATCH_NORM_NETS) & set(CHAINS)  # the others: test_slim_nets.py
    for family, others in names.PREPROCESSING_FAMILIES.items():
        assert {name for name, kind in PREPROCESSINGS.items() if kind is PREPROCESSINGS[family]} == {family, *others}


def test_exports_have_what_the_table_says() -> None:
    readers = READERS[ExportConfig]
    for name in {name for chosen in FORMATS.values() for name in chosen.options}:
        having = {form for form, chosen in FORMATS.items() if name in chosen.options}
        reader = readers[name]
        assert isinstance(reader, With)
        assert reader.option == 'quantize' or set(reader.values) == having
    quantized = {form for form, chosen in FORMATS.items() if len(chosen.quantizations) > 1}
    reader = readers['quantize']
    assert isinstance(reader, With)
    assert set(reader.values) == quantized


def lines(config_class: type, values: dict[str, Any], given: set[str]) -> list[str]:
    return unread(make_config(config_class, **values), given)


@pytest.mark.parametrize(
    ('config_class', 'values', 'given', 'expected'),
    [
        # On the command line a default counts; in a flagfile, which may be the config.cfg of a run, it does not.
        (
            TrainConfig,
            {'optimizer': 'sgd'},
            {'momentum'},
            '--momentum=0.9 has no effect with --optimizer=sgd; only momentum and lars use it',
        ),
        (TrainConfig, {'optimizer': 'sgd'}, {'optimizer'}, None),
        (
            TrainConfig,
            {'momentum': 0.8},
            set(),
            '--momentum=0.8 has no effect with --optimizer=rmsprop; only momentum and lars use it',
        ),
        (TrainConfig, {'mixup_prob': 0.5}, set(), '--mixup_prob=0.5 has no effect without --mixup_alpha or --cutmix_a'),
        (TrainConfig, {'mixup_prob': 0.5, 'cutmix_alpha': 1.0}, set(), None),
        (
            TrainConfig,
            {'mixup_switch_prob': 0.1, 'cutmix_alpha': 1.0},
            set(),
            'has no effect without --mixup_alpha and --cutmix_alpha',
        ),
        (
            TrainConfig,
            {'learning_rate_decay_type': 'fixed', 'num_epochs_per_decay': 4.0},
            set(),
            '--num_epochs_per_decay=4.0 has no effect with --learning_rate_decay_type=fixed; only exponential and',
        ),
        (
            TrainConfig,
            {'model_name': 'lenet', 'random_flip': False},
            set(),
            '--norandom_flip has no effect with --preprocessing_name=lenet',
        ),
        (TrainConfig, {'preprocessing_name': 'vgg_16', 'random_flip': False}, set(), None),
        # What the work refuses itself is not said twice.
        (TrainConfig, {'preprocessing_name': 'whole', 'use_bounding_boxes': True}, {'use_bounding_boxes'}, None),
        (
            TrainConfig,
            {'preprocessing_name': 'whole'},
            {'min_crop_area'},
            '--min_crop_area=0.05 has no effect with --preprocessing_name=whole; only inception uses it',
        ),
        (TrainConfig, {'sync_batch_norm': True}, set(), '--sync_batch_norm has no effect with --model_name=alexnet_v2'),
        (
            TrainConfig,
            {'dataset_name': 'cifar10', 'synthetic_images': 'host'},
            set(),
            '--synthetic_images=host has no effect with --dataset_name=cifar10; only synthetic uses it',
        ),
        # The embedded digits are evaluated without being asked to.
        (TrainConfig, {'recall_at': (1,)}, set(), None),
        (
            TrainConfig,
            {'recall_at': (1, 3), 'dataset_dir': '/data'},
            set(),
            '--recall_at=1,3 has no effect without --eval_every_epochs or --eval_every_steps',
        ),
        (TrainConfig, {'ignore_missing_vars': True}, set(), '--ignore_missing_vars has no effect without --checkpoint'),
        (TrainConfig, {'optimizer': 'sgd', 'momentum': 0.8, 'summary': True}, {'momentum'}, None),
        (BenchmarkConfig, {'synthetic_images': 'host', 'mode': 'step'}, set(), None),
        (BenchmarkConfig, {'train_dir': '/tmp/x', 'best_metric': 'none'}, {'train_dir', 'best_metric'}, None),
        (BenchmarkConfig, {'cache': 'off'}, set(), '--cache=off has no effect with --dataset_name=synthetic'),
        (
            EvalConfig,
            {'eval_timeout_secs': 5.0},
            set(),
            '--eval_timeout_secs=5.0 has no effect without --eval_interval',
        ),
        (EvalConfig, {'eval_timeout_secs': 5.0, 'eval_interval_secs': 1.0}, set(), None),
        (EvalConfig, {'eval_timeout_secs': 5.0, 'eval_interval_secs': 0.0}, set(), None),
        (EvalConfig, {'compare': ('a.onnx',)}, {'checkpoint_path'}, '/tmp/tfmodel/ has no effect with --compare=a.onn'),
        (ExportConfig, {'format': 'keras'}, {'calibration_images'}, '--calibration_images=100 has no effect with --q'),
        (ExportConfig, {'format': 'keras'}, {'sample_test_data'}, '--sample_test_data=0 has no effect with --format=k'),
        (PredictConfig, {'checkpoint_path': 'net.onnx', 'layout': 'NCHW'}, set(), None),
        (EvalConfig, {'checkpoint_path': 'net.onnx', 'xla': 'on'}, set(), '--xla=on has no effect with --compare, and'),
        (EvalConfig, {'checkpoint_path': '/tmp/run', 'xla': 'on'}, set(), None),
        (EvalConfig, {'compare': ('/tmp/run', 'b'), 'num_clones': 2}, set(), '--num_clones=2 has no effect with --com'),
        (ConvertConfig, {'verify': True, 'train_shards': 2}, set(), '--train_shards=2 has no effect with --verify'),
    ],
)
def test_lines_of_unread_flags(
    config_class: type, values: dict[str, Any], given: set[str], expected: str | None
) -> None:
    found = lines(config_class, values, given)
    if expected is None:
        assert not found
    else:
        (line,) = found
        assert expected in line


def test_layout_of_a_checkpoint(tmp_path: Path) -> None:
    (line,) = lines(PredictConfig, {'checkpoint_path': str(tmp_path), 'layout': 'NCHW'}, set())
    assert line.startswith(
        '--layout=NCHW has no effect on a checkpoint; it applies to SavedModels, .tflite and .onnx files'
    )
    (tmp_path / 'saved_model.pb').touch()
    assert not lines(PredictConfig, {'checkpoint_path': str(tmp_path), 'layout': 'NCHW'}, set())


@pytest.mark.parametrize(
    ('values', 'given', 'is_warned'),
    [
        ({'optimizer': 'adam'}, set(), True),
        ({'optimizer': 'adam'}, {'opt_epsilon'}, False),
        ({'optimizer': 'adam', 'opt_epsilon': 1e-7}, set(), False),
        ({'optimizer': 'rmsprop'}, set(), False),
    ],
)
def test_epsilon_of_adam(values: dict[str, Any], given: set[str], is_warned: bool) -> None:
    found = advice(make_config(TrainConfig, **values), given)
    assert len(found) == is_warned
    assert not is_warned or re.search('set --opt_epsilon=1e-7', found[0])


@pytest.mark.parametrize('recipe', sorted(ROOT.glob('configs/*.cfg')), ids=lambda path: path.stem)
def test_recipes_have_no_such_flags(recipe: Path) -> None:
    text = '\n'.join(line for line in recipe.read_text().splitlines() if not line.startswith('#'))
    config = make_config(TrainConfig, **from_flagfile(TrainConfig, text))
    assert not unread(config, set())
    assert not advice(config, set())


def warnings_of(*flags: str) -> list[str]:
    """Returns the warnings of a command that ends before TensorFlow is imported."""
    finished = run_python('train_image_classifier.py', *flags, '--dataset_dir=/no/such', '--dataset_name=imagenet')
    *lines, last = finished.stderr.splitlines()
    assert last == 'error: --dataset_dir=/no/such: no such folder'
    return lines


def test_what_a_command_is_warned_of(tmp_path: Path) -> None:
    """A flag counts on the command line with any value, in a flagfile only if it is not the default."""
    config = make_config(TrainConfig, optimizer='sgd')
    (tmp_path / 'config.cfg').write_text(to_flagfile(config, without=('cluster', 'plan')))
    in_file = f'--flagfile={tmp_path}/config.cfg'
    assert warnings_of(in_file) == []
    expected = ['warning: --momentum=0.9 has no effect with --optimizer=sgd; only momentum and lars use it']
    assert warnings_of(in_file, '--momentum=0.9') == expected
    assert warnings_of('--optimizer=sgd', '--momentum', '0.9') == expected
    assert warnings_of('--optimizer=sgd', '--norandom_flip', '--preprocessing_name=lenet') == [
        'warning: --norandom_flip has no effect with --preprocessing_name=lenet; only caffe, cifarnet, inception, '
        'torchvision, vgg and whole use it'
    ]
    (adam,) = warnings_of('--optimizer=adam', '--learning_rate=1e-4')
    assert adam.startswith("warning: --optimizer=adam: slim's default --opt_epsilon=1.0 makes")
    assert warnings_of('--optimizer=adam', '--opt_epsilon=1.0') == []
    finished = run_python('train_image_classifier.py', '--optimizer=adam', '--worker_hosts=a:1', '--task=1')
    assert 'opt_epsilon' not in finished.stderr  # the first worker says it
