"""Records as people have had them: what is said of each, and what reads it all the same."""

import os
import re
import shlex
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from configs.conversion import ConvertConfig
from configs.data import RecordNames
from configs.options import make_config
from configs.training import TrainConfig
from datasets import tfrecord
from datasets.conversion.unpack import unpack
from datasets.dataset_factory import Dataset, get_dataset
from datasets.examples import RecordExamples
from datasets.input_pipeline import evaluation_batches, naming_failures
from engine import evaluation, training
from engine.classifiers.model_spec import ModelSpec
from preprocessing.preprocessing_factory import get_preprocessing
from support.errors import InputError
from tests.runs import eval_config, small_config
from tests.scripts import run_python

pytest_plugins = ['tests.cases']

KEYS = 'image/class/label ({label}), image/encoded (bytes), image/format (bytes)'
OTHERS = 'write the records so, or name other keys by --record_keys=image=KEY,label=KEY'
# What is said of a record of each.
SAID = {
    'label_bytes': (
        "record 0: image/class/label holds bytes (b'0'), and must hold one int64; its keys are "
        f'{KEYS.format(label="bytes")}; {OTHERS}'
    ),
    'label_float': (
        'record 0: image/class/label holds float (0.0), and must hold one int64; its keys are '
        f'{KEYS.format(label="float")}; {OTHERS}'
    ),
    'label_minus_one': (
        'record 5: label -1 is outside the 3 classes 0 to 2; labels count from 0: make this file again'
    ),
    'other_keys': (
        'record 0: has no key image/encoded; its keys are image_raw (bytes), label (int64); read them with '
        '--record_keys=image=image_raw,label=label'
    ),
    'not_an_example': (
        "record 0: not a tf.train.Example, but 7 bytes like b'\\x01\\x02hello'; write the records as tf.train.Example, "
        'or convert the images with download_and_convert_data.py'
    ),
    'raw_pixels': (
        'record 0: image/encoded is 6,000 bytes of raw pixels (image/format is raw), and must be an image file; encode '
        'them, as with tf.io.encode_png'
    ),
    'base64': (
        'record 0: image/encoded is base64 text of a JPEG; write the bytes themselves, as base64.b64decode gives them'
    ),
}
BY_OTHERS = {'gzip', 'one_bad_image'}  # tests of their own below
OTHER_KEYS = RecordNames(('image=image_raw', 'label=label'))


def read(dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of a split, prepared for evaluation."""
    preprocessing, count = get_preprocessing('lenet', 28), dataset.num_examples
    with naming_failures(dataset, preprocessing, range(count)):
        batch = next(iter(evaluation_batches(dataset, preprocessing, count)))
        return batch['image'].numpy(), batch['label'].numpy()


def test_every_case_has_a_row(made_inputs: Path) -> None:
    assert {*SAID, *BY_OTHERS} == {path.name for path in (made_inputs / 'records').iterdir()}


@pytest.mark.parametrize('case', SAID)
def test_what_is_said(made_inputs: Path, case: str) -> None:
    folder = made_inputs / 'records' / case
    with pytest.raises(InputError) as raised:
        read(get_dataset('flowers', str(folder), 'train'))
    assert str(raised.value) == f'{folder}/flowers_train_00000-of-00002.tfrecord, {SAID[case]}'


# ------------------------------------------------------------------------ other names


def test_other_keys_are_read(made_inputs: Path) -> None:
    found = read(get_dataset('flowers', str(made_inputs / 'records/other_keys'), 'train', record_names=OTHER_KEYS))
    slims = read(get_dataset('flowers', str(made_inputs / 'records/one_bad_image'), 'train[:24]'))
    for array, expected in zip(found, slims, strict=True):
        np.testing.assert_array_equal(array, expected)


def _train(folder: Path, train_dir: Path, **options: Any) -> training.TrainResult:
    run = {'dataset_name': 'flowers', 'train_image_size': 28, 'batch_size': 4, 'max_number_of_steps': 2}
    return training.train(small_config(folder, train_dir, **{**run, **options}))


@pytest.mark.full
def test_a_run_knows_its_names(made_inputs: Path, tmp_path: Path) -> None:
    """Training takes them, in all that it does, and evaluation of the run without any flag."""
    folder = tmp_path / 'records'
    folder.mkdir()
    for path in (made_inputs / 'records/other_keys').iterdir():
        (folder / path.name.replace('flowers_', 'my-').replace('validation', 'val')).symlink_to(path)
    train_dir = tmp_path / 'run'
    names: dict[str, Any] = {'record_keys': OTHER_KEYS.record_keys, 'file_pattern': 'my-{split}_*.tfrecord'}
    result = _train(folder, train_dir, eval_every_steps=2, **names)
    assert result.results is not None
    assert result.results['num_examples'] == 24
    spec = ModelSpec.load(str(train_dir))
    assert spec is not None
    assert spec.record_names == RecordNames(OTHER_KEYS.record_keys, 'my-{split}_*.tfrecord')
    results = evaluation.evaluate(eval_config(train_dir))
    assert (results['num_examples'], results['dataset_split_name']) == (24, 'val')
    (compared, _) = [evaluation.evaluate(eval_config(train_dir, **names, batch_size=size)) for size in (5, 24)]
    assert compared['accuracy'] == results['accuracy']
    with pytest.raises(InputError, match='record_keys'):
        _train(folder, train_dir, file_pattern='my-{split}_*.tfrecord')  # a run goes on with what it began with


def test_files_of_other_names_are_hinted_at(made_inputs: Path, tmp_path: Path) -> None:
    for path in (made_inputs / 'records/base64').iterdir():
        (tmp_path / path.name.replace('flowers', 'photos')).symlink_to(path)
    with pytest.raises(InputError) as raised:
        get_dataset('flowers', str(tmp_path), 'train')
    assert str(raised.value).endswith(
        "; give another --dataset_name, or the names of the files: --file_pattern='NAME-{split}-*'"
    )


@pytest.mark.parametrize(
    ('pattern', 'files', 'splits'),
    [
        ('my-{split}-*.tfrecord', ('my-train-0.tfrecord', 'my-validation-0.tfrecord'), ('train', 'validation')),
        ('{split}*', ('train.tfrecord', 'val0', 'val1', 'test'), ('train', 'val', 'test')),
        ('{split}*', ('training0', 'validation0'), ('training', 'validation')),
        ('*.rec', ('a.rec', 'b.rec'), ('train',)),
    ],
)
def test_a_pattern_finds_the_splits(
    tmp_path: Path, pattern: str, files: tuple[str, ...], splits: tuple[str, ...]
) -> None:
    example = tfrecord.image_example(b'', 'jpg', 1, 1, 0)
    for name in files:
        tfrecord.write_records(str(tmp_path / name), [example])
    with pytest.raises(InputError, match=f'flowers has the splits {", ".join(splits)}$'):
        get_dataset('flowers', str(tmp_path), 'none', record_names=RecordNames(file_pattern=pattern))
    total = sum(
        get_dataset('flowers', str(tmp_path), split, record_names=RecordNames(file_pattern=pattern)).num_examples
        for split in splits
    )
    assert total == len(files)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    'no part': (
        {'record_keys': ('picture=a',)},
        '--record_keys=picture=a: unknown entry picture=a; write image=KEY',
    ),
    'no key': ({'record_keys': ('image=', 'label=b')}, '--record_keys=image=,label=b: unknown entry image=; write'),
    'twice': ({'record_keys': ('image=a', 'image=b')}, '--record_keys=image=a,image=b: image is named twice'),
    'braces': (
        {'file_pattern': '{name}-*'},
        '--file_pattern={name}-*: only {split}, the name of the split, may appear in',
    ),
    'open brace': (
        {'file_pattern': '{split'},
        '--file_pattern={split: only {split}, the name of the split, may appear in',
    ),
    'method': (
        {'file_pattern': '{split.upper}'},
        '--file_pattern={split.upper}: only {split}, the name of the split, ',
    ),
    'folders': (
        {'file_pattern': 'a/*'},
        '--file_pattern=a/*: must be a pattern of file names in --dataset_dir, without folders',
    ),
}


@pytest.mark.parametrize('case', REFUSED)
def test_names_that_are_none(case: str) -> None:
    options, message = REFUSED[case]
    with pytest.raises(InputError) as raised:
        make_config(TrainConfig, **options)
    assert str(raised.value).startswith(message)
    with pytest.raises(InputError):
        eval_config('/run', **options)


@pytest.mark.parametrize('name', ['image_folder', 'tfds:mnist', 'synthetic', 'digits'])
def test_names_of_records_are_for_records(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'^--record_keys=image=image_raw,label=label: '):
        get_dataset(name, str(tmp_path), 'train', record_names=OTHER_KEYS)


# ------------------------------------------------------------------------ compressed


def _packed(folder: Path, compression: str) -> Path:
    """The folder of the case, or one like it with the other compression."""
    if compression == 'GZIP':
        return folder
    packed = folder.parent.parent / 'zlib'
    packed.mkdir(exist_ok=True)
    for path in folder.iterdir():
        content = path.read_bytes()
        is_text = path.suffix == '.txt'
        (packed / path.name).write_bytes(content if is_text else zlib.compress(zlib.decompress(content, 31)))
    return packed


@pytest.mark.parametrize('compression', ['GZIP', 'ZLIB'])
def test_compressed_files_are_named_and_unpacked(
    made_inputs: Path, tmp_path: Path, compression: str, capsys: pytest.CaptureFixture
) -> None:
    folder = _packed(made_inputs / 'records' / 'gzip', compression)
    with pytest.raises(InputError) as raised:
        get_dataset('flowers', str(folder), 'train')
    path = f'{folder}/flowers_train_00000-of-00002.tfrecord'
    assert str(raised.value) == (
        f'{path}: compressed ({compression}), so its records cannot be read by offset; unpack the folder '
        f'with: python download_and_convert_data.py --unpack {shlex.quote(f"--source_dir={folder}")} '
        '--dataset_dir=NEW_FOLDER'
    )
    target = tmp_path / 'new'
    config = make_config(ConvertConfig, source_dir=str(folder), dataset_dir=str(target), unpack=True)
    for _ in range(2):  # what is there is left
        assert unpack(config) == 0
        assert f'{target} is complete: 3 files unpacked, 1 copied' in capsys.readouterr().out
    expected = zlib.decompress(Path(path).read_bytes(), 47)
    assert (target / 'flowers_train_00000-of-00002.tfrecord').read_bytes() == expected
    assert get_dataset('flowers', str(target), 'train').num_examples == 24
    assert sorted(os.listdir(target)) == sorted(os.listdir(folder))


@pytest.mark.full
def test_the_command_that_is_printed_works(made_inputs: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        get_dataset('flowers', str(made_inputs / 'records' / 'gzip'), 'train')
    command = str(raised.value).partition('with: python ')[2].replace('NEW_FOLDER', str(tmp_path / 'new'))
    result = run_python(*shlex.split(command))
    assert result.returncode == 0, result.stderr
    assert result.stdout == f'{tmp_path}/new is complete: 3 files unpacked, 1 copied\n'


def test_what_unpacking_refuses(made_inputs: Path, tmp_path: Path) -> None:
    source = made_inputs / 'records' / 'gzip'

    def message(**options: str) -> str:
        with pytest.raises(InputError) as raised:
            unpack(make_config(ConvertConfig, unpack=True, **options))
        return str(raised.value)

    assert message(dataset_dir='x').startswith('--source_dir is missing')
    assert message(source_dir=str(source)).startswith('--dataset_dir is missing')
    assert message(source_dir=str(source), dataset_dir=str(source)).endswith('must be another folder than --source_dir')
    assert message(source_dir=str(source), dataset_dir='gs://x').endswith(
        'must be a folder on this machine, without ://'
    )
    both = {'source_dir': str(source), 'dataset_dir': str(tmp_path / 'x')}
    assert message(**both, dataset_name='flowers').startswith(
        '--dataset_name=flowers: --unpack takes all TFRecords of a'
    )
    assert 'holds no TFRecords that are compressed' in message(source_dir=str(tmp_path), dataset_dir='x')
    cut = tmp_path / 'cut'
    cut.mkdir()
    content = (source / 'flowers_validation_00000-of-00001.tfrecord').read_bytes()
    (cut / 'a.tfrecord.gz').write_bytes(content[: len(content) * 3 // 4])
    target = tmp_path / 'target'
    said = message(source_dir=str(cut), dataset_dir=str(target))
    assert re.search(r'a\.tfrecord\.gz, record \d+: damaged, or cut short; make or copy this file again$', said)
    assert not list(target.iterdir())
    (target / 'a.tfrecord').symlink_to('nowhere')
    assert 'holds a.tfrecord, which was not made of' in message(source_dir=str(cut), dataset_dir=str(target))
    (target / 'a.tfrecord').unlink()
    (target / 'a.tfrecord').write_text('of somebody')
    assert 'holds a.tfrecord, which was not made of' in message(source_dir=str(cut), dataset_dir=str(target))


def test_compressed_files_by_their_ending(tmp_path: Path) -> None:
    (tmp_path / 'flowers_train_00000-of-00001.tfrecord.gz').write_bytes(b'')
    with pytest.raises(InputError, match=r'decompress these with: python download_and_convert_data.py --unpack'):
        get_dataset('flowers', str(tmp_path), 'train')


# ------------------------------------------------------------------------ one bad image


@pytest.mark.full
def test_one_bad_image(made_inputs: Path, tmp_path: Path) -> None:
    """The options of the case: saved every six steps, it ended at a later one."""
    folder = made_inputs / 'records' / 'one_bad_image'
    options = {'cache': 'off', 'batch_size': 4, 'save_interval_steps': 6, 'seed': 3, 'max_number_of_steps': 60}
    for _ in range(2):
        with pytest.raises(InputError, match=r'record 117: its image cannot be prepared: .*--on_bad_image=skip$'):
            _train(folder, tmp_path, **options)
        assert tf.train.latest_checkpoint(str(tmp_path)) == f'{tmp_path}/model.ckpt-49'
    assert _train(folder, tmp_path, on_bad_image='skip', **options).step == 60


def test_records_that_look_alright_are_left_alone(made_inputs: Path) -> None:
    dataset = get_dataset('flowers', str(made_inputs / 'records' / 'one_bad_image'), 'train')
    assert isinstance(dataset.examples, RecordExamples)
    assert dataset.examples.not_an_image(0) is None
