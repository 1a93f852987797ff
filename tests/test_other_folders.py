"""Evaluation on another folder than a run was trained on, and how many channels a net takes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from configs.options import make_config
from configs.prediction import PredictConfig
from datasets.dataset_factory import get_dataset
from engine import evaluation
from engine.classifiers.model_spec import ModelSpec
from engine.evaluation import compare
from engine.prediction import predict as predicting
from engine.training.train import TrainResult, train
from support.errors import InputError
from tests.runs import eval_config, saved_values, small_config

CLASSES = ('ant', 'bee', 'cat')
GRAYS = {'ant': 20, 'bee': 120, 'cat': 240}


def write_classes(folder: Path, *classes: str, count: int = 4) -> Path:
    """A plain folder of classes; each has its own gray."""
    for name in classes:
        (folder / name).mkdir(parents=True)
        for i in range(count):
            Image.new('RGB', (8, 8), (GRAYS.get(name, 0) + i,) * 3).save(folder / name / f'{i}.png')
    return folder


@pytest.fixture(scope='module')
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainResult]:
    """A plain folder of three classes, and a net that tells them apart."""
    folder = write_classes(tmp_path_factory.mktemp('photos'), *CLASSES)
    train_dir = tmp_path_factory.mktemp('run')
    return folder, train(small_config(folder, train_dir, dataset_name='image_folder', max_number_of_steps=60))


@pytest.mark.quick('True')
@pytest.mark.parametrize('is_compared', [False, True])
def test_a_folder_of_test_images_is_the_split_that_the_flag_says(run, tmp_path, is_compared):
    """Its labels are those of the run, though it lacks a class."""
    folder = write_classes(tmp_path / 'test images', 'bee', 'cat', count=3)
    options = {'dataset_dir': str(folder), 'dataset_split_name': 'test', 'eval_dir': str(tmp_path / 'eval')}
    if is_compared:
        del options['eval_dir']
        (results,) = compare(eval_config('unused', compare=(run[1].checkpoint_path,), **options))
    else:
        results = evaluation.evaluate(eval_config(run[1].checkpoint_path, **options))
        assert results['dataset_split_name'] == 'test'
    assert (results['num_examples'], results['accuracy']) == (6, 1.0)
    examples = get_dataset('image_folder', str(folder), 'test', classes_of_net=CLASSES).examples
    assert sorted(int(examples.check(number)['label']) for number in range(6)) == [1, 1, 1, 2, 2, 2]


def test_folders_of_splits_without_train_have_the_classes_of_the_run(run, tmp_path):
    write_classes(tmp_path / 'test', 'cat')
    options = {'dataset_dir': str(tmp_path), 'eval_dir': str(tmp_path / 'eval'), 'dataset_split_name': 'test'}
    results = evaluation.evaluate(eval_config(run[1].checkpoint_path, **options))
    assert (results['num_examples'], results['accuracy']) == (4, 1.0)


@pytest.mark.parametrize(
    ('classes', 'options', 'message'),
    [
        (
            ('bee', 'cat'),
            {},
            'is not divided into splits; name the split of its images: --dataset_split_name=test',
        ),
        (
            ('bee', 'dog'),
            {'dataset_split_name': 'test'},
            "'dog' is not one of the 3 classes of the net; name the folders",
        ),
        (('bee', 'cat'), {'dataset_split_name': 'tets'}, '--dataset_split_name=tets: image_folder has the splits tr'),
        (('bee', 'cat'), {'dataset_split_name': 'test+train'}, r'--dataset_split_name=test\+train: .* is not divided'),
        (('bee', 'dog'), {'dataset_split_name': 'test', 'force': True}, 'has 3 classes, but image_folder in .* has 2'),
    ],
)
def test_what_of_another_folder_is_refused(run, tmp_path, classes, options, message):
    folder = write_classes(tmp_path / 'other', *classes)
    with pytest.raises(InputError, match=message):
        evaluation.evaluate(eval_config(run[1].checkpoint_path, dataset_dir=str(folder), **options))


@pytest.mark.parametrize('named', [True, False])
def test_the_folder_of_the_run_stays_its_training_split(run, named):
    """Or what was trained on would be called a test."""
    options = {'dataset_dir': f'{run[0]}/.'} if named else {}
    with pytest.raises(InputError, match='--dataset_split_name=test: image_folder has the splits train'):
        evaluation.evaluate(eval_config(run[1].checkpoint_path, dataset_split_name='test', **options))


# ------------------------------------------------------------------------ channels


@pytest.mark.quick('options1-*')
@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        ({}, (1, False)),
        ({'channels': 3}, (3, False)),
        ({'channels': 1}, (1, False)),
        ({'channels': 1, 'use_grayscale': True}, (1, True)),
        ({'preprocessing_name': 'inception', 'train_image_size': 16, 'use_grayscale': True}, (1, True)),
        ({'preprocessing_name': 'inception', 'train_image_size': 16}, (3, False)),
        ({'preprocessing_name': 'inception', 'train_image_size': 16, 'channels': 1}, (1, True)),
    ],
)
def test_channels_of_a_gray_data_set(train_digits, digits_dir, tmp_path, capsys, options, expected):
    """They are recorded, and everything else reads them."""
    result = train_digits(tmp_path / 'run', max_number_of_steps=1, **{'preprocessing_name': 'whole', **options})
    spec = ModelSpec.load(str(tmp_path / 'run'))
    assert spec is not None
    assert (spec.channels, spec.use_grayscale) == expected
    assert saved_values(result.checkpoint_path)['LeNet/conv1/weights'].shape[2] == expected[0]
    evaluated = evaluation.evaluate(eval_config(result.checkpoint_path, eval_dir=str(tmp_path / 'eval')))
    assert evaluated['num_examples'] == 360
    Image.fromarray(np.full((8, 8, 3), 90, np.uint8)).save(tmp_path / 'a.png')
    asked = make_config(PredictConfig, images=(str(tmp_path / 'a.png'),), checkpoint_path=result.checkpoint_path)
    assert predicting.predict(asked) == 0


@pytest.mark.full
def test_channels_of_a_data_set_in_colour(run, tmp_path):
    result = train(small_config(run[0], tmp_path, dataset_name='image_folder', max_number_of_steps=1, channels=1))
    assert saved_values(result.checkpoint_path)['LeNet/conv1/weights'].shape[2] == 1
    spec = ModelSpec.load(str(tmp_path))
    assert spec is not None
    assert spec.use_grayscale


def test_channels_are_1_or_3(trained):
    with pytest.raises(InputError, match='--channels=2: must be one of 1, 3'):
        eval_config(trained.checkpoint_path, channels=2)
    with pytest.raises(InputError, match=r'contradict how the net was trained \(model.json\): --channels=3 \(1\)'):
        evaluation.evaluate(eval_config(trained.checkpoint_path, channels=3))
