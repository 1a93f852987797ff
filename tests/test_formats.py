"""The same photographs as a folder of images, as TFRecords and through TFDS: the same examples, the same numbers."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from datasets import class_folders as source
from datasets import files
from datasets.dataset_factory import Dataset, get_dataset
from datasets.examples import FileExamples
from datasets.input_pipeline import evaluation_batches, naming_failures, training_batches
from engine import training
from preprocessing.preprocessing_factory import get_preprocessing
from support.errors import InputError
from tests.runs import assert_same_values, small_config
from tests.sources import convert_to

SharedPath = Callable[[str], Path]
FolderOf = Callable[[str], tuple[str, str]]
PREPROCESSING = get_preprocessing('inception', 32)
KINDS = ('image_folder', 'converted', 'tfds')


@pytest.fixture(scope='module')
def photographs(shared_path: SharedPath, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real JPEGs, and one PNG, in folders of classes: 36 to train on, 12 to evaluate."""
    folder = tmp_path_factory.mktemp('photographs')
    source = get_dataset('imagenet', str(shared_path('data/imagenet_mini')), 'train[:48]')
    for number in range(len(source.examples)):
        image = source.examples.check(number)['image'].numpy()
        if number == 5:
            image = tf.io.encode_png(tf.io.decode_image(image, 3)).numpy()
        place = folder / ('validation' if number % 4 == 3 else 'train') / f'class{number % 3}' / f'{number}.jpg'
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(image)
    return folder


@pytest.fixture(scope='module')
def converted(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('converted')
    return convert_to(photographs, folder, train_shards=3, validation_shards=2, num_processes=1)


class Photographs(tfds.core.GeneratorBasedBuilder):
    """The same folders as a data set of TFDS."""

    VERSION = tfds.core.Version('1.0.0')
    source: Path

    def _info(self) -> tfds.core.DatasetInfo:
        label = tfds.features.ClassLabel(names=['class0', 'class1', 'class2'])
        features = tfds.features.FeaturesDict({'image': tfds.features.Image(shape=(None, None, 3)), 'label': label})
        return tfds.core.DatasetInfo(builder=self, features=features, supervised_keys=('image', 'label'))

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(self.source / split) for split in ('train', 'validation')}

    def _generate_examples(self, folder):
        for path in sorted(folder.glob('*/*')):
            yield path.name, {'image': path.read_bytes(), 'label': path.parent.name}


@pytest.fixture(scope='module')
def of_tfds(photographs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp('tfds')
    Photographs.source = photographs
    Photographs(data_dir=str(folder)).download_and_prepare()
    return folder


@pytest.fixture(scope='module')
def folder_of(photographs: Path, converted: Path, of_tfds: Path) -> FolderOf:
    """Returns a function from the kind to --dataset_name and --dataset_dir."""
    flags = {
        'image_folder': ('image_folder', str(photographs)),
        'converted': ('image_folder', str(converted)),
        'tfds': ('tfds:photographs', str(of_tfds)),
    }
    return lambda kind: flags[kind]


def _examples(dataset: Dataset) -> list[tuple[int, bytes]]:
    """Returns label and pixels of every example, sorted."""
    batches = evaluation_batches(dataset, PREPROCESSING, 5)
    return sorted(
        (int(label), image.tobytes())
        for batch in batches
        for image, label, number in zip(*(batch[key].numpy() for key in ('image', 'label', 'number')), strict=True)
        if number >= 0
    )


@pytest.mark.quick('validation')
@pytest.mark.parametrize('split', ['train', 'validation'])
def test_examples_are_the_same(folder_of: FolderOf, split: str) -> None:
    of_kind = {kind: get_dataset(*folder_of(kind), split=split) for kind in KINDS}
    folder = of_kind['image_folder']
    assert isinstance(folder.examples, FileExamples)
    assert len(folder.examples) == {'train': 36, 'validation': 12}[split]
    for dataset in of_kind.values():
        assert (dataset.num_classes, dataset.label_names) == (3, ('class0', 'class1', 'class2'))
        assert _examples(dataset) == _examples(folder)


def test_folder_and_its_conversion_have_the_same_order(folder_of: FolderOf) -> None:
    folder, records = (get_dataset(*folder_of(kind), split='train') for kind in ('image_folder', 'converted'))
    for first, second in zip(
        *(training_batches(data, PREPROCESSING, 6, 0, 30).take(4) for data in (folder, records)), strict=True
    ):
        np.testing.assert_array_equal(first['image'], second['image'])
        np.testing.assert_array_equal(first['label'], second['label'])


@pytest.mark.full
@pytest.mark.parametrize('num_clones', [1, 2])
@pytest.mark.parametrize('kind', KINDS)
def test_every_kind_trains_from_a_cache(folder_of: FolderOf, tmp_path: Path, kind: str, num_clones: int) -> None:
    name, dataset_dir = folder_of(kind)
    splits = {'dataset_split_name': 'train[:75%]', 'eval_split_name': 'train[75%:]', 'eval_every_epochs': 1}
    run = {'dataset_name': name, 'devices': 'cpu', 'num_clones': num_clones, 'batch_size': 4, 'num_epochs': 2}
    values = {}
    for cache in ('auto', 'off'):
        result = training.train(small_config(dataset_dir, tmp_path / cache, cache=cache, **splits, **run))
        assert result.results is not None
        assert result.results['num_examples'] == 9
        values[cache] = result.checkpoint_path
    assert_same_values(values['auto'], values['off'])


@pytest.mark.quick('image_folder')
@pytest.mark.parametrize('kind', KINDS)
def test_slices_of_every_kind(folder_of: FolderOf, kind: str) -> None:
    whole, *parts = (
        _examples(get_dataset(*folder_of(kind), split=split)) for split in ('train', 'train[:75%]', 'train[75%:]')
    )
    assert [len(part) for part in parts] == [27, 9]
    assert sorted(parts[0] + parts[1]) == whole
    both = _examples(get_dataset(*folder_of(kind), split='validation+train[:-30]'))
    assert len(both) == 12 + 6


def test_slices_of_a_folder_hold_all_classes(folder_of: FolderOf) -> None:
    dataset = get_dataset(*folder_of('image_folder'), split='train[:50%]')
    assert isinstance(dataset.examples, FileExamples)
    assert set(dataset.examples.labels) == {0, 1, 2}


def test_labels_txt_gives_the_folders_their_labels(photographs: Path, tmp_path: Path) -> None:
    for split in ('train', 'validation'):
        (tmp_path / split).symlink_to(photographs / split)
    (tmp_path / 'labels.txt').write_text('0:background\n1:class2\n2:class1\n3:class0\n')
    dataset = get_dataset('image_folder', str(tmp_path), None, labels_offset=1)
    assert dataset.label_names == ('class2', 'class1', 'class0')
    for number in range(len(dataset.examples)):
        label = int(dataset.examples.check(number)['label'])
        assert f'{os.sep}class{3 - label}{os.sep}' in dataset.examples.describe(number)


@pytest.mark.parametrize('kind', KINDS)
def test_an_offset_that_takes_away_images_is_refused_at_once(folder_of: FolderOf, kind: str) -> None:
    message = r'^--labels_offset=1: there are images of label 0 \(class0\); use an offset of at most 0$'
    with pytest.raises(InputError, match=message):
        get_dataset(*folder_of(kind), split='validation', labels_offset=1)


def test_only_the_split_that_is_read_is_listed(photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[str] = []

    def list_folder(path: str, left_out: files.LeftOut | None = None) -> list[files.Entry]:
        listed.append(path)
        return files.list_folder(path, left_out)

    monkeypatch.setattr(source, 'list_folder', list_folder)
    get_dataset('image_folder', str(photographs), 'validation')
    assert listed == [str(photographs / 'validation' / f'class{number}') for number in range(3)]


def test_unreadable_files_of_a_folder_are_named(photographs: Path, tmp_path: Path) -> None:
    shutil.copytree(photographs, tmp_path, dirs_exist_ok=True)
    bad = tmp_path / 'validation' / 'class1' / 'bad.png'
    bad.write_bytes(b'no image')
    dataset = get_dataset('image_folder', str(tmp_path), 'validation')
    for problem in ('its image cannot be prepared: Unknown image file format', 'cannot be read: '):
        with (
            pytest.raises(InputError, match=re.escape(f'{bad}: {problem}')),
            naming_failures(dataset, PREPROCESSING, range(len(dataset.examples))),
        ):
            list(evaluation_batches(dataset, PREPROCESSING, 4))
        bad.unlink(missing_ok=True)


@pytest.mark.parametrize(
    ('name', 'folder', 'split', 'message'),
    [
        ('image_folder', None, 'train', '--dataset_dir is missing: the folder of the images'),
        ('image_folder', 'no_such', 'train', 'no_such: no such folder'),
        ('image_folder', 'train/class0/0.jpg', 'train', '0.jpg: not a readable folder: Not a directory'),
        ('image_folder', '', 'tset', '--dataset_split_name=tset: image_folder has the splits train, validation'),
        ('image_folder', 'train', None, "image_folder has only the split train, so none is left to evaluate; name a "
         "part of it that was not trained on, as in --dataset_split_name='train[90%:]'"),
    ],
)  # fmt: skip
def test_what_is_wrong(photographs: Path, name: str, folder: str | None, split: str | None, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        get_dataset(name, None if folder is None else str(photographs / folder), split)


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('["images_per_class"]', "dataset.json: damaged, or of another version: it is ['images_per_class'], and must"),
        (
            '{"name": "tfds:mnist", "class_names": [], "channels": 1, '
            '"splits": {"train": {"images_per_class": [], "shards": []}}}',
            'holds tfds:mnist, converted; name that, or another folder',
        ),
    ],
)
def test_damaged_dataset_json(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / 'dataset.json').write_text(text)
    with pytest.raises(InputError, match=re.escape(message)):
        get_dataset('image_folder', str(tmp_path), 'train')


def test_dataset_json_of_another_program_is_left_alone(photographs: Path, tmp_path: Path) -> None:
    (tmp_path / 'train').symlink_to(photographs / 'train')
    (tmp_path / 'dataset.json').write_text('{"labels": [["0.png", 3]]}')
    assert isinstance(get_dataset('image_folder', str(tmp_path), 'train').examples, FileExamples)


def test_a_split_without_classes_is_left_out(
    photographs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for split in ('train', 'validation'):
        (tmp_path / split).symlink_to(photographs / split)
    (tmp_path / 'test').mkdir()
    shutil.copy(photographs / 'train' / 'class0' / '0.jpg', tmp_path / 'test')
    with caplog.at_level('WARNING', logger='absl'):
        assert get_dataset('image_folder', str(tmp_path), None).split == 'validation'
    assert 'left out: test' in caplog.text


def test_missing_shard_of_a_conversion(converted: Path, tmp_path: Path) -> None:
    shutil.copytree(converted, tmp_path, dirs_exist_ok=True)
    (tmp_path / 'train-00001-of-00003').unlink()
    with pytest.raises(InputError, match=r'train-00001-of-00003: missing, though dataset.json names it'):
        get_dataset('image_folder', str(tmp_path), 'train')
