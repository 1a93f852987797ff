"""Warnings of a net that does not learn: each on data and nets that have the fault, and none on healthy runs."""

import dataclasses
import logging
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from sklearn.datasets import load_digits

from configs.options import from_flagfile, make_config
from configs.training import TrainConfig
from datasets import tfrecord
from engine import checkpoints, evaluation, training
from engine.classifiers.saved_model_runtime import DESCRIPTION
from engine.evaluation import health
from preprocessing import preprocessing_factory
from preprocessing.base import Normalization
from preprocessing.lenet import Lenet
from tests.runs import DIGITS_NET, eval_config, saved_values
from tests.served_nets import export
from tests.test_source import ROOT

KINDS = {
    'input': 'nearly of one colour|has values from',
    'labels': 'labels look shifted by one',
    'layer': 'is dead',
    'preparation': 'right with --',
    'loss': 'is still that of guessing',
    'classes': 'the net predicts class',
}
LEARNS = {'max_number_of_steps': 600, 'eval_every_steps': 100}
CIFARNET = {'model_name': 'cifarnet', 'train_image_size': 16}


def write_digits(
    folder: Path,
    relabel: Callable[[int, int], int | None] = lambda digit, number: digit,
    *,
    classes: int = 10,
    largest: int = 255,
) -> Path:
    """Writes the digits in their usual files.

    Args:
        folder: Where.
        relabel: Maps digit and number to a label, or to None to leave the example out.
        classes: Number of lines in labels.txt.
        largest: Pixel value of ink.
    """
    folder.mkdir()
    (folder / 'labels.txt').write_text(''.join(f'{label}:{label}\n' for label in range(classes)))
    images, digits = load_digits(return_X_y=True)
    pixels = np.rint(images.reshape(-1, 8, 8, 1) * (largest / 16)).astype(np.uint8)
    for split in ('train', 'test'):
        chosen = [number for number in range(len(digits)) if (number % 5 == 0) == (split == 'test')]
        labels = {number: relabel(int(digits[number]), number) for number in chosen}
        examples = (
            tfrecord.image_example(tf.io.encode_png(pixels[number]).numpy(), 'png', 8, 8, label)
            for number, label in labels.items()
            if label is not None
        )
        tfrecord.write_records(str(folder / f'digits_{split}.tfrecord'), examples)
    return folder


def warned(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """Returns the place and the kind of each warning so far."""
    # TensorFlow warns of nets that a process made before.
    warnings = [each for each in caplog.records if each.levelno >= logging.WARNING and each.name == 'absl']
    messages = [record.getMessage() for record in warnings]
    found = [(text.partition(': ')[0], kind) for text in messages for kind in KINDS if re.search(KINDS[kind], text)]
    assert len(found) == len(messages), messages
    return found


def evaluate(path: Path | str, folder: Path, **options: Any) -> float:
    """Evaluates on the digits in a folder; returns the accuracy."""
    options = {'dataset_name': 'digits', 'dataset_dir': str(folder), 'eval_dir': f'{folder}/events', **options}
    return evaluation.evaluate(eval_config(path, **options))['accuracy']


# ------------------------------------------------------------------------ a net that has learned nothing


def test_a_loss_of_guessing_is_named_once_and_not_at_first(train_digits, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(health, '_YOUNG_STEPS', 2)
    monkeypatch.setattr(health, '_YOUNG_IMAGES_PER_CLASS', 3.2)
    train_digits(tmp_path / 'run', max_number_of_steps=3, eval_every_steps=1, learning_rate=1e-9, **CIFARNET)
    assert warned(caplog) == [('step 2', 'loss')]
    assert re.search(r'the loss, 2\.3\d*, .* guessing, 2\.303 \(ln of .* try --learning_rate', caplog.text)
    caplog.clear()
    evaluate(tmp_path / 'run', tmp_path)
    assert [kind for _, kind in warned(caplog)] == ['loss']


@pytest.mark.full
def test_a_learning_rate_that_is_too_low(train_digits, tmp_path, caplog):
    options = {'max_number_of_steps': 750, 'eval_every_steps': 250, 'learning_rate': 1e-9}
    train_digits(tmp_path / 'run', **options, **CIFARNET)
    assert warned(caplog) == [('step 500', 'loss')]


@pytest.mark.full
def test_predictions_of_one_class(train_digits, digits_dir, tmp_path, caplog):
    """Learned from a split of nearly one class."""
    skewed = write_digits(tmp_path / 'skewed', lambda digit, number: 3 if number % 50 else digit)
    train_digits(tmp_path / 'run', dataset_dir=str(skewed), max_number_of_steps=500)
    evaluate(tmp_path / 'run', digits_dir, eval_dir=str(tmp_path))
    assert [kind for _, kind in warned(caplog)] == ['classes']
    assert re.search(r'class 3 for (9\d|100)\.\d% of the examples, which is the label of 1\d\.\d%', caplog.text)


@pytest.mark.quick('2')
@pytest.mark.parametrize('num_clones', [1, 2])
def test_a_dead_layer(trained, digits_dir, tmp_path, caplog, num_clones):
    values = saved_values(trained.checkpoint_path)
    values['LeNet/conv2/biases'] -= 1e6
    folder = tmp_path / 'run'
    folder.mkdir()
    shutil.copy(Path(trained.checkpoint_path).parent / 'model.json', folder)
    checkpoints.save(str(folder), 300, values, max_to_keep=1)
    evaluate(folder, digits_dir, eval_dir=str(tmp_path), num_clones=num_clones)
    assert [kind for _, kind in warned(caplog)] == ['layer']
    assert 'layer conv2 is dead: its outputs were all 0 for each of 360 images' in caplog.text


@pytest.mark.full
def test_a_layer_that_dies_in_training_is_named_once(train_digits, tmp_path, caplog):
    train_digits(tmp_path, max_number_of_steps=60, eval_every_steps=20, optimizer='sgd', learning_rate=3.0)
    assert [kind for _, kind in warned(caplog)] == ['layer']


# ------------------------------------------------------------------------ images


def test_float_images_stored_as_pixels(train_digits, tmp_path, caplog):
    folder = write_digits(tmp_path / 'dark', largest=1)
    train_digits(tmp_path / 'run', dataset_dir=str(folder), max_number_of_steps=2, eval_every_steps=1)
    assert warned(caplog) == [('step 1', 'input')]
    assert (
        'each of 360 images is nearly of one colour: within an image, pixels differ by at most 1 of 255' in caplog.text
    )


@dataclasses.dataclass(frozen=True)
class Unscaled(Lenet):
    """Gives the net 0..255."""

    @property
    def normalization(self) -> Normalization:
        return self._normalize_channels(0.0, 1.0)


@dataclasses.dataclass(frozen=True)
class ScaledTwice(Lenet):
    """Divides by 255 on the host, and by 128 on the device."""

    def host_eval(self, image: tf.Tensor) -> tf.Tensor:
        return super().host_eval(image) / 255


@pytest.mark.quick('Unscaled-*')
@pytest.mark.parametrize(
    ('family', 'values'), [(Unscaled, 'from 0 to 255'), (ScaledTwice, 'each of 360 images is nearly of one colour')]
)
def test_a_preprocessing_with_another_range_than_it_declares(
    train_digits, tmp_path, caplog, monkeypatch, family, values
):
    monkeypatch.setitem(preprocessing_factory.PREPROCESSINGS, 'own', family)
    train_digits(tmp_path, preprocessing_name='own', max_number_of_steps=2, eval_every_steps=1)
    assert warned(caplog) == [('step 1', 'input')]
    assert values in caplog.text


@pytest.mark.full
def test_another_preprocessing_than_the_checkpoints(train_digits, digits_dir, tmp_path, caplog):
    train_digits(tmp_path / 'run', channels=3, max_number_of_steps=150)
    (tmp_path / 'run/model.json').unlink()
    net = {key: value for key, value in DIGITS_NET.items() if key != 'dataset_name'}
    evaluate(tmp_path / 'run', digits_dir, eval_dir=str(tmp_path), preprocessing_name='vgg', **net)
    assert [kind for _, kind in warned(caplog)] == ['preparation']
    ((flag, name),) = re.findall(r'right with --(\w+)=(\w+)', caplog.text)
    caplog.clear()
    accuracy = evaluate(tmp_path / 'run', digits_dir, eval_dir=str(tmp_path), **{flag: name}, **net)
    assert (accuracy > 0.9, warned(caplog)) == (True, [])


@pytest.mark.full
def test_a_foreign_file_that_scales_its_images_itself(trained, digits_dir, tmp_path, caplog):
    path = export(trained.checkpoint_path, tmp_path / 'net', format='saved_model', includes_preprocessing=True)
    os.remove(path / DESCRIPTION)
    options = {'eval_dir': str(tmp_path), 'preprocessing_name': 'lenet'}
    evaluate(path, digits_dir, **options)
    assert [kind for _, kind in warned(caplog)] == ['preparation']
    assert re.search('has 1.. right with --includes_preprocessing, and .* as given', caplog.text)
    caplog.clear()
    assert evaluate(path, digits_dir, includes_preprocessing=True, **options) > 0.9
    assert warned(caplog) == []


# ------------------------------------------------------------------------ labels


@pytest.fixture(scope='module')
def numbered(tmp_path_factory) -> dict[int, Path]:
    """The digits in 11 classes, labelled from 0 and from 1."""
    folder = tmp_path_factory.mktemp('numbered')
    starts = {0: lambda digit, number: digit, 1: lambda digit, number: digit + 1}
    return {first: write_digits(folder / f'from_{first}', relabel, classes=11) for first, relabel in starts.items()}


@pytest.mark.quick('0--1')
@pytest.mark.parametrize(('first', 'shift'), [(0, '-1'), (1, r'\+1')])
def test_labels_that_are_shifted_by_one(train_digits, numbered, tmp_path, caplog, first, shift):
    other = numbered[1 - first]
    train_digits(tmp_path / 'run', dataset_dir=str(numbered[first]), max_number_of_steps=150)
    evaluate(tmp_path / 'run', numbered[first], eval_dir=str(tmp_path))
    assert warned(caplog) == []
    evaluate(tmp_path / 'run', other, eval_dir=str(tmp_path))
    assert [kind for _, kind in warned(caplog)] == ['labels']
    assert re.search(
        rf'the prediction is the label {shift} for 9\d\.\d% .* the label itself for [0-3]\.\d%', caplog.text
    )
    assert ('give --labels_offset=1 and a labels.txt with one class more' in caplog.text) == (first == 0)
    if first == 0:
        other = write_digits(tmp_path / 'remedied', lambda digit, number: digit + 1, classes=12)
        options = {'labels_offset': 1, 'force': True, 'eval_dir': str(tmp_path)}
        assert evaluate(tmp_path / 'run', other, **options) > 0.9


# ------------------------------------------------------------------------ healthy runs


def of_two(digit: int, number: int) -> int | None:
    return digit if digit < 2 else None


def imbalanced(digit: int, number: int) -> int | None:
    """Returns 1 for one digit, of which only every second is taken: 5 % of the examples."""
    return (1 if number % 2 else None) if digit == 7 else 0


@pytest.mark.quick('few steps')
@pytest.mark.parametrize(
    ('options', 'relabel', 'classes'),
    [
        (LEARNS, None, 10),
        ({'max_number_of_steps': 3, 'eval_every_steps': 1}, None, 10),
        ({'max_number_of_steps': 3, 'eval_every_steps': 1, 'learning_rate': 1e-9, **CIFARNET}, None, 10),
        (LEARNS, of_two, 2),
        (LEARNS, imbalanced, 2),
        ({**LEARNS, **CIFARNET}, None, 10),
        ({**LEARNS, 'num_clones': 2}, None, 10),
    ],
    ids=['lenet', 'few steps', 'few steps of cifarnet', '2 classes', '95 %', 'cifarnet', 'two devices'],
)
def test_healthy_runs_have_no_warnings(train_digits, digits_dir, tmp_path, caplog, options, relabel, classes):
    folder = write_digits(tmp_path / 'data', relabel, classes=classes) if relabel else digits_dir
    train_digits(tmp_path / 'run', dataset_dir=str(folder), **{'recall_at': (1,), **options})
    evaluate(tmp_path / 'run', folder, eval_dir=str(tmp_path), recall_at=(1,))
    assert warned(caplog) == []


@pytest.mark.full
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    'options',
    [
        {},
        {'model_name': 'lenet', 'preprocessing_name': 'whole'},
        {'model_name': 'cifarnet', 'preprocessing_name': 'whole'},
    ],
    ids=['alexnet_v2', 'lenet', 'cifarnet'],
)
def test_recipes_have_no_warnings(digits_dir, tmp_path, caplog, options):
    """The first recipe of the README, and slim's small nets at their own size."""
    recipe = from_flagfile(TrainConfig, (ROOT / 'configs/alexnet_v2_digits.cfg').read_text()) if not options else {}
    folders = {'dataset_name': 'digits', 'dataset_dir': str(digits_dir), 'train_dir': str(tmp_path)}
    training.train(
        make_config(TrainConfig, **{**recipe, 'num_epochs': 15.0, 'eval_every_steps': 90, **options, **folders})
    )
    assert warned(caplog) == []


@pytest.mark.full
@pytest.mark.parametrize('preprocessing', ['cifarnet', 'lenet', 'inception'])
def test_slims_checkpoint(shared_path, tmp_path, caplog, preprocessing):
    """Without a warning with its own preprocessing; lenet's is too near to tell, inception's is not."""
    path, data = shared_path('goldens/checkpoints/cifarnet_cifar10'), shared_path('data/cifar10')
    options = {'model_name': 'cifarnet', 'dataset_name': 'cifar10', 'preprocessing_name': preprocessing}
    evaluate(path, data, eval_dir=str(tmp_path), **options)
    assert [kind for _, kind in warned(caplog)] == (['preparation'] if preprocessing == 'inception' else [])
