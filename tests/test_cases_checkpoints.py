"""Checkpoints as people have had them, from `../shared/cases`: each is read by all that reads checkpoints, or named."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from configs import early
from configs.evaluation import EvalConfig
from configs.export import ExportConfig
from configs.foreign import ForeignOptions, NetOverrides
from configs.options import make_config
from engine import checkpoints, evaluation
from engine.classifiers import Classifier, load_classifier
from export.exporting import export
from support.errors import InputError
from tests.runs import eval_config, saved_values

pytest_plugins = ['tests.cases']

Loader = Callable[..., Classifier]
NET = NetOverrides(model_name='cifarnet')
# Folder of the case -> whether its weights are averages, their scope, and the name of the checkpoint in it.
READ: dict[str, tuple[bool, str | None, str]] = {
    'averages_only': (True, None, 'model.ckpt-3600'),
    'before_2017': (False, None, 'model.ckpt-3600'),
    'no_state_file': (False, None, 'cifarnet.ckpt'),
    'towers': (False, 'tower_0', 'model.ckpt-3600'),
}
REFUSED = {'no_index'}


@pytest.fixture
def case(made_inputs: Path) -> Callable[[str], Path]:
    return lambda name: made_inputs / 'checkpoints' / name


@pytest.fixture(scope='module')
def images() -> np.ndarray:
    return np.random.RandomState(0).uniform(0, 255, (3, 32, 32, 3)).astype(np.float32)


@pytest.fixture(scope='module')
def expected(shared_path: Callable[[str], Path], images: np.ndarray) -> np.ndarray:
    """The logits of the checkpoint that all cases were made of."""
    folder = shared_path('goldens/checkpoints/cifarnet_cifar10')
    return load_classifier(str(folder), NET).scores(images)


def test_all_cases_are_here(made_inputs: Path) -> None:
    assert {path.name for path in (made_inputs / 'checkpoints').iterdir()} == {*READ, *REFUSED}


@pytest.mark.parametrize('name', READ)
def test_prediction(name: str, case: Callable[[str], Path], images: np.ndarray, expected: np.ndarray) -> None:
    averages, scope, prefix = READ[name]
    foreign = ForeignOptions(checkpoint_scope=scope)
    for path in (case(name), case(name) / prefix):
        early.check_checkpoint(str(path))
        classifier = load_classifier(str(path), NET, foreign, averages=averages)
        assert classifier.path == str(case(name) / prefix)
        np.testing.assert_array_equal(classifier.scores(images), expected)
    assert classifier.step == 3600


@pytest.mark.quick('towers')
@pytest.mark.parametrize('name', READ)
def test_evaluation_and_comparison(name: str, case: Callable[[str], Path], shared_path, tmp_path: Path) -> None:
    averages, scope, _ = READ[name]
    options: dict[str, Any] = {
        **NET.given(),
        'dataset_name': 'cifar10',
        'dataset_dir': str(shared_path('data/cifar10')),
        'max_num_batches': 2,
        'checkpoint_scope': scope,
        'moving_average_decay': 0.999 if averages else None,
    }
    results = evaluation.evaluate(eval_config(case(name), eval_dir=str(tmp_path / 'eval'), **options))
    assert float(results['accuracy']) > 0.5
    (compared,) = evaluation.compare(make_config(EvalConfig, compare=(str(case(name)),), **options))
    assert compared['accuracy'] == results['accuracy']


@pytest.mark.parametrize('name', READ)
def test_export(name: str, case: Callable[[str], Path], tmp_path: Path, shared_path) -> None:
    averages, scope, _ = READ[name]
    path = str(tmp_path / 'net')
    options = {'checkpoint_scope': scope, 'moving_average_decay': 0.999 if averages else None}
    export(
        make_config(
            ExportConfig, checkpoint_path=str(case(name)), output_path=path, format='slim', **NET.given(), **options
        )
    )
    original = saved_values(str(shared_path('goldens/checkpoints/cifarnet_cifar10') / 'model.ckpt-3600'))
    exported = saved_values(checkpoints.find_checkpoint(path))
    weights = [key for key in exported if key.startswith('CifarNet/') and key.count('/') == 2]
    assert len(weights) == 10
    for key in weights:
        np.testing.assert_array_equal(exported[key], original[key])


# What is asked -> what is said; {path} is the folder of the case.
MESSAGES: dict[str, tuple[str, dict[str, Any], str]] = {
    'averages_only': ('averages_only', {}, 'holds only the moving averages of the weights: .* --moving_average_decay'),
    'towers': ('towers', {}, r'it is not of cifarnet: its names begin with tower_0/: give --checkpoint_scope=tower_0;'),
    'no index': ('no_index', {}, r'--checkpoint_path={path}: {path}/model.ckpt-3600.index is missing'),
    'another scope': ('towers', {'checkpoint_scope': 'tower_7'}, 'tower_7: no name in .* they start with tower_0'),
}


@pytest.mark.parametrize('row', MESSAGES)
def test_what_does_not_fit_is_said(row: str, case: Callable[[str], Path]) -> None:
    name, options, message = MESSAGES[row]
    with pytest.raises(InputError, match=message.format(path=case(name))):
        load_classifier(str(case(name)), NET, ForeignOptions(**options))


def test_the_net_need_not_be_guessed(case: Callable[[str], Path]) -> None:
    """Where neither the flags nor a model.json say the net, the names in the checkpoint do."""
    with pytest.raises(InputError, match=r'give --model_name=cifarnet$'):
        load_classifier(str(case('no_state_file')))
    with pytest.raises(InputError, match=r'not of lenet: its names are those of cifarnet; what differs:\n'):
        load_classifier(str(case('no_state_file')), NetOverrides(model_name='lenet'))


@pytest.mark.parametrize('ending', ['', '.data-00000-of-00001'])
def test_a_missing_index_is_named(case: Callable[[str], Path], ending: str) -> None:
    prefix = case('no_index') / 'model.ckpt-3600'
    message = f'--checkpoint_path={prefix}{ending}: {prefix}.index is missing, and the .data file is useless without it'
    with pytest.raises(InputError, match=re.escape(message)):
        early.check_checkpoint(f'{prefix}{ending}')
    with pytest.raises(InputError, match=re.escape(message)):
        checkpoints.find_checkpoint(f'{prefix}{ending}')


def test_missing_data_is_named(case: Callable[[str], Path], tmp_path: Path) -> None:
    shutil.copy(case('no_state_file') / 'cifarnet.ckpt.index', tmp_path)
    with pytest.raises(InputError, match=r'cifarnet.ckpt: .*: its file cifarnet.ckpt.data-00000-of-00001 is missing'):
        load_classifier(str(tmp_path / 'cifarnet.ckpt'), NET)


@pytest.mark.parametrize(
    ('names', 'message'),
    [
        (('first.ckpt', 'second.ckpt'), 'several checkpoints.* give one of them: {0}/first.ckpt, {0}/second.ckpt'),
        (('damaged-model.ckpt-7', '.part-model.ckpt-8'), 'no checkpoint in this folder'),  # what was set aside
    ],
)
def test_folders_in_which_none_is_the_one(
    case: Callable[[str], Path], tmp_path: Path, names: tuple[str, ...], message: str
) -> None:
    for path in case('no_state_file').iterdir():
        for name in names:
            shutil.copy(path, tmp_path / path.name.replace('cifarnet.ckpt', name))
    with pytest.raises(InputError, match=message.format(tmp_path)):
        checkpoints.find_checkpoint(str(tmp_path))


@pytest.mark.filterwarnings('ignore:__array__ implementation:DeprecationWarning')  # Keras, saving tf.Variable
def test_a_plain_keras_file(tmp_path: Path) -> None:
    """Of another program, whose layers have names of their own: the table says what differs."""
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(4, name='head')])
    path = str(tmp_path / 'net.keras')
    model.save(path)
    for where in (path, str(tmp_path)):
        with pytest.raises(InputError) as error:
            load_classifier(where, NetOverrides(model_name='alexnet'))
        lines = str(error.value).splitlines()
        assert lines[0].startswith(f'{path} has no ')
        assert lines[0].endswith(', so it is not of alexnet; what differs:')
        assert [line.split() for line in lines if '/head/' in line] == [
            ['sequential/head/biases', 'missing', '4'],
            ['sequential/head/weights', 'missing', '192x4'],
        ]
        assert any(line.split()[-2].endswith('x?') and line.endswith('missing') for line in lines[2:])


def test_a_checkpoint_of_python_objects(tmp_path: Path) -> None:
    module = tf.Module()
    module.kernel = tf.Variable(tf.zeros([3]))
    path = tf.train.Checkpoint(net=module).save(str(tmp_path / 'objects'))
    with pytest.raises(InputError, match='it is a checkpoint of Python objects'):
        load_classifier(path, NET)
    with pytest.raises(InputError, match='does not fit the net: it is a checkpoint of Python objects'):
        checkpoints.warm_start(path, {'net/kernel': tf.Variable(tf.zeros([3]))}, [], ignore_missing=False)
