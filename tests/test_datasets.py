"""Data sets: what is found in a folder, the records' schema and index, the embedded digits, labels.txt."""

import dataclasses
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from datasets import digits, tfrecord
from datasets.dataset_factory import DATASETS, Dataset, get_dataset
from datasets.examples import RecordExamples
from datasets.records import load_label_names
from datasets.tfrecord import RecordIndex
from support.errors import InputError

SharedPath = Callable[[str], Path]


@dataclasses.dataclass(frozen=True)
class Expected:
    """The content of a data set's tiny copy among the goldens; the embedded digits are complete."""

    sizes: dict[str, int]
    num_classes: int
    first_and_last_name: tuple[str, str]
    channels: int = 3


EXPECTED = {
    'cifar10': Expected({'train': 20, 'test': 20}, 10, ('airplane', 'truck')),
    'digits': Expected({'train': 1437, 'test': 360}, 10, ('0', '9'), channels=1),
    'flowers': Expected({'train': 12, 'validation': 12}, 5, ('daisy', 'tulips')),
    'imagenet': Expected(
        {'train': 6, 'validation': 6}, 1001, ('background', 'toilet tissue, toilet paper, bathroom tissue')
    ),
    'mnist': Expected({'train': 20, 'test': 20}, 10, ('zero', 'nine'), channels=1),
}
SPLITS = [(name, split) for name, expected in EXPECTED.items() for split in expected.sizes]

# (folder under shared/data, data set, split) -> records
COMPLETE_SIZES = {
    ('cifar10', 'cifar10', 'train'): 50_000,
    ('cifar10', 'cifar10', 'test'): 10_000,
    ('mnist', 'mnist', 'train'): 60_000,
    ('mnist', 'mnist', 'test'): 10_000,
    ('imagenet_mini', 'imagenet', 'train'): 160,
    ('imagenet_mini', 'imagenet', 'validation'): 40,
}


@pytest.fixture
def dataset_dir(shared_path: SharedPath, digits_dir: Path) -> Callable[[str], str]:
    """Returns a function from the name of a data set to a folder that has it."""

    def path(name: str) -> str:
        return str(digits_dir if name == 'digits' else shared_path(f'goldens/tfrecords/{name}'))

    return path


def _example(label: int = 0, encoded: bytes = b'image') -> tf.train.Example:
    return tfrecord.image_example(encoded, 'png', 1, 1, label)


def _write(path: Path, *labels: int) -> str:
    tfrecord.write_records(str(path), map(_example, labels))
    return str(path)


def _read(index: RecordIndex) -> list[dict[str, tf.Tensor]]:
    paths = tf.constant(index.paths)
    return [
        tfrecord.parse_example(tfrecord.read_record(paths, number, offset))
        for number, offset in zip(index.file_numbers, index.offsets, strict=True)
    ]


def _index(dataset: Dataset) -> RecordIndex:
    assert isinstance(dataset.examples, RecordExamples)
    return dataset.examples.index


def _labels(index: RecordIndex) -> list[int]:
    return [int(example['label']) for example in _read(index)]


# The factory


def test_every_data_set_is_tested() -> None:
    assert EXPECTED.keys() == DATASETS.keys()
    for name, expected in EXPECTED.items():
        assert tuple(expected.sizes) == DATASETS[name].splits


@pytest.mark.parametrize(('name', 'split'), SPLITS)
def test_split_is_what_its_files_hold(dataset_dir: Callable[[str], str], name: str, split: str) -> None:
    expected = EXPECTED[name]
    dataset = get_dataset(name, dataset_dir(name), split)
    assert dataset.num_examples == len(_index(dataset)) == expected.sizes[split]
    assert (dataset.name, dataset.split, dataset.dataset_dir) == (name, split, dataset_dir(name))
    assert dataset.num_classes == len(dataset.label_names) == expected.num_classes
    assert (dataset.label_names[0], dataset.label_names[-1]) == expected.first_and_last_name
    assert dataset.channels == expected.channels
    assert all(split in os.path.basename(path) for path in _index(dataset).paths)


@pytest.mark.parametrize(('folder', 'name', 'split'), COMPLETE_SIZES)
def test_size_of_the_complete_data_sets(shared_path: SharedPath, folder: str, name: str, split: str) -> None:
    dataset = get_dataset(name, str(shared_path(f'data/{folder}')), split)
    assert dataset.num_examples == COMPLETE_SIZES[folder, name, split]


def test_evaluation_split_is_the_last(dataset_dir: Callable[[str], str]) -> None:
    for name, expected in EXPECTED.items():
        assert get_dataset(name, dataset_dir(name), None).split == list(expected.sizes)[-1]


def test_labels_txt_decides_the_number_of_classes(tmp_path: Path) -> None:
    _write(tmp_path / 'train-00000-of-00001', 1)
    dataset = get_dataset('imagenet', str(tmp_path), 'train')
    assert (dataset.num_classes, dataset.label_names) == (1001, ())  # slim's
    (tmp_path / 'labels.txt').write_text('0:cat\n1:dog\n2:eel\n')
    assert get_dataset('imagenet', str(tmp_path), 'train').num_classes == 3


def test_shards_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for shard in (2, 0, 1):
        _write(tmp_path / f'train-0000{shard}-of-00003', shard, shard + 10)
    index = _index(get_dataset('imagenet', str(tmp_path), 'train'))
    assert _labels(index) == [0, 10, 1, 11, 2, 12]


@pytest.mark.parametrize('folder', ['with space', 'a[1]*b?', 'back\\slash', '{x,y}', 'ümlaut'])
def test_folder_may_have_any_name(tmp_path: Path, folder: str) -> None:
    (tmp_path / folder).mkdir()
    path = _write(tmp_path / folder / 'train-00000-of-00001', 1)
    assert _index(get_dataset('imagenet', str(tmp_path / folder), 'train')).paths == (path,)


def test_unfinished_file_is_not_part_of_a_split(tmp_path: Path) -> None:
    def interrupted():
        yield _example()
        raise KeyboardInterrupt

    _write(tmp_path / 'train-00000-of-00002', 1)
    with pytest.raises(KeyboardInterrupt):
        tfrecord.write_records(str(tmp_path / 'train-00001-of-00002'), interrupted())
    assert get_dataset('imagenet', str(tmp_path), 'train').num_examples == 1


SHARD_WARNINGS = {
    'one is missing': (['00000-of-00003', '00002-of-00003'], ['2 of 3 shards of split train found']),
    'two conversions': (
        ['00000-of-00001', '00000-of-00002', '00001-of-00002'],
        ['split train is read from several sets of shards: -of-1 and -of-2'],
    ),
    'complete': (['00000-of-00002', '00001-of-00002'], []),
    'not numbered': (['all'], []),
}


@pytest.mark.parametrize('case', SHARD_WARNINGS)
def test_doubtful_shards_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture, case: str) -> None:
    shards, expected = SHARD_WARNINGS[case]
    for shard in shards:
        _write(tmp_path / f'train-{shard}', 1)
    get_dataset('imagenet', str(tmp_path), 'train')
    warnings = [record.getMessage() for record in caplog.records if record.levelname == 'WARNING']
    assert [warning.removeprefix(f'{tmp_path}: ') for warning in warnings] == expected


# name, dataset_dir below a folder with records of imagenet's split train, split, labels_offset, message
FACTORY_ERRORS = {
    'misspelt name': (
        ('imagenett', '', 'train', 0),
        "unknown dataset_name 'imagenett' (did you mean 'imagenet'?); valid: "
        'cifar10, digits, flowers, image_folder, imagenet, mnist, synthetic, tfds:<name>',
    ),
    'unknown split': (
        ('cifar10', '', 'validation', 0),
        '--dataset_split_name=validation: cifar10 has the splits train, test',
    ),
    'no dataset_dir': (
        ('imagenet', None, 'train', 0),
        '--dataset_dir is missing: the folder of the TFRecords of imagenet (only digits and synthetic need none)',
    ),
    'missing folder': (('imagenet', 'nowhere', 'train', 0), '--dataset_dir={dir}: no such folder'),
    'empty folder': (
        ('imagenet', 'empty', 'train', 0),
        '--dataset_dir={dir} has no file train-* (split train of imagenet); it holds nothing',
    ),
    'another data set': (
        ('flowers', '', 'train', 0),
        '--dataset_dir={dir} has no file flowers_train_*.tfrecord (split train of flowers); '
        'it holds a, b, c, empty, labels.txt ...',
    ),
    'no records': (
        ('imagenet', '', 'validation', 0),
        'the imagenet files of split validation in {dir} hold no records: {dir}/validation-00000-of-00001',
    ),
    'offset too large': (('imagenet', '', 'train', 2), '--labels_offset=2 leaves 1 of 3 classes'),
}


@pytest.mark.parametrize('case', FACTORY_ERRORS)
def test_factory_says_what_is_wrong(tmp_path: Path, case: str) -> None:
    (name, folder, split, labels_offset), message = FACTORY_ERRORS[case]
    _write(tmp_path / 'train-00000-of-00001', 1)
    _write(tmp_path / 'validation-00000-of-00001')
    (tmp_path / 'labels.txt').write_text('0:cat\n1:dog\n2:eel\n')
    for other in ('a', 'b', 'c', 'empty'):
        (tmp_path / other).mkdir()
    path = None if folder is None else str(tmp_path / folder)
    with pytest.raises(InputError) as raised:
        get_dataset(name, path, split, labels_offset)
    assert str(raised.value) == message.format(dir=path)


@pytest.mark.parametrize('name', ['imagenet', 'digits', 'image_folder', 'tfds:mnist'])
def test_file_systems_that_do_not_exist(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    message = r'^--dataset_dir=foo://x: TensorFlow has no file system foo:// here, only .*file://.* and local paths$'
    with pytest.raises(InputError, match=message):
        get_dataset(name, 'foo://x', 'train')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('name', [b'train-\xff', b'other-\xff'])
def test_names_that_are_not_utf8_are_refused(tmp_path: Path, name: bytes) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b'/' + name)).touch()
    message = f'^--dataset_dir={tmp_path} holds {re.escape(repr(name))}, whose name is not UTF-8; rename it$'
    with pytest.raises(InputError, match=message):
        get_dataset('imagenet', str(tmp_path), 'train')


# labels.txt


def test_labels_txt_of_mnist_keeps_slims_spelling(shared_path: SharedPath) -> None:
    names = load_label_names(str(shared_path('goldens/tfrecords/mnist')))
    assert names == ('zero', 'one', 'two', 'three', 'four', 'five', 'size', 'seven', 'eight', 'nine')


LABELS_TXT = {
    'names with colons': ('0:a:b\n1:c\n', ('a:b', 'c')),
    'any order': ('2:c\n0:a\n1:b\n', ('a', 'b', 'c')),
    'blank lines, spaces, Windows line ends': ('\r\n 0 : a \r\n\r\n1:b c\r\n', ('a', 'b c')),
    'no end of line': ('0:a\n1:b', ('a', 'b')),
    'not only ASCII': ('0:Gänseblümchen\n1:薔薇\n', ('Gänseblümchen', '薔薇')),
    'two classes of one name': ('0:crane\n1:crane\n', ('crane', 'crane')),
    'nothing': ('', ()),
}


@pytest.mark.parametrize('case', LABELS_TXT)
def test_labels_txt(tmp_path: Path, case: str) -> None:
    text, names = LABELS_TXT[case]
    (tmp_path / 'labels.txt').write_bytes(text.encode())
    assert load_label_names(str(tmp_path)) == names


BAD_LABELS_TXT = {
    'no id': ('0:a\n\nb\n', "{path}, line 3: 'b' is not of the form id:name"),
    'id is no number': ('0:a\nx:b\n', "{path}, line 2: 'x:b' is not of the form id:name"),
    'negative id': ('-1:a\n0:b\n', "{path}, line 1: '-1:a' is not of the form id:name"),
    'from 1': ('1:a\n2:b\n', '{path}: the ids must be 0 to 1, each once'),
    'gap': ('0:a\n2:b\n', '{path}: the ids must be 0 to 1, each once'),
    'an id twice': ('0:a\n1:b\n1:c\n', '{path}: the ids must be 0 to 2, each once'),
}


@pytest.mark.parametrize('case', BAD_LABELS_TXT)
def test_malformed_labels_txt(tmp_path: Path, case: str) -> None:
    text, message = BAD_LABELS_TXT[case]
    (tmp_path / 'labels.txt').write_text(text)
    with pytest.raises(InputError) as raised:
        load_label_names(str(tmp_path))
    assert str(raised.value) == message.format(path=tmp_path / 'labels.txt')


# The schema


@pytest.mark.parametrize('split', ['train', 'validation'])
def test_records_of_slim_in_the_order_of_its_files(shared_path: SharedPath, split: str) -> None:
    contents = np.load(shared_path('goldens/tfrecords/contents.npz'))
    dataset = get_dataset('flowers', str(shared_path('goldens/tfrecords/flowers')), split)
    examples = _read(_index(dataset))
    np.testing.assert_array_equal([example['label'] for example in examples], contents[f'flowers_{split}_labels'])
    lengths = [len(example['image'].numpy()) for example in examples]
    np.testing.assert_array_equal(lengths, contents[f'flowers_{split}_encoded_len'])


def test_boxes_of_slims_imagenet(shared_path: SharedPath) -> None:
    dataset = get_dataset('imagenet', str(shared_path('goldens/tfrecords/imagenet')), 'train')
    examples = _read(_index(dataset))
    assert [len(example['boxes']) for example in examples] == [2, 1, 0, 1, 0, 2]
    assert all(1 <= example['label'] <= 1000 for example in examples)
    for example in examples:
        assert example['boxes'].dtype == tf.float32
        ymin, xmin, ymax, xmax = tf.transpose(tf.reshape(example['boxes'], [-1, 4])).numpy()
        assert np.all((ymin >= 0) & (ymin < ymax) & (ymax <= 1))
        assert np.all((xmin >= 0) & (xmin < xmax) & (xmax <= 1))


def test_image_example_has_the_keys_and_types_of_slims(shared_path: SharedPath, tmp_path: Path) -> None:
    def feature_types(path: str) -> dict[str, str | None]:
        (record,) = tf.data.TFRecordDataset(path).take(1)
        features = tf.train.Example.FromString(record.numpy()).features.feature
        return {key: feature.WhichOneof('kind') for key, feature in features.items()}

    slims = str(shared_path('goldens/tfrecords/cifar10/cifar10_train.tfrecord'))
    assert feature_types(_write(tmp_path / 'ours', 3)) == feature_types(slims)


def test_a_written_record_is_read_as_it_was(tmp_path: Path) -> None:
    path = str(tmp_path / 'records')
    written = tfrecord.write_records(path, [_example(3, b'first'), _example(7, b'second')])
    first, second = _read(tfrecord.index_files([path]))
    assert written == 2
    assert (first['image'], first['label']) == (b'first', 3)
    assert (second['image'], second['label']) == (b'second', 7)
    assert first['boxes'].shape == (0, 4)
    assert os.listdir(tmp_path) == ['records']


def test_record_without_any_feature_has_defaults() -> None:
    example = tfrecord.parse_example(tf.train.Example().SerializeToString())
    assert (example['image'], example['label']) == (b'', tfrecord.MISSING_LABEL)
    assert example['boxes'].shape == (0, 4)


# The index


@pytest.fixture
def shards(tmp_path: Path) -> list[str]:
    """Three files of 3, 0 and 2 records."""
    return [_write(tmp_path / name, *labels) for name, labels in {'a': (0, 1, 2), 'b': (), 'c': (3, 4)}.items()]


def test_index_finds_and_names_every_record(shards: list[str]) -> None:
    index = tfrecord.index_files(shards)
    assert not _hidden_files(Path(shards[0]).parent)  # it took no time
    assert index.file_numbers.tolist() == [0, 0, 0, 2, 2]
    assert [index.file_numbers.dtype, index.offsets.dtype] == ['int32', 'int64']
    assert _labels(index) == [0, 1, 2, 3, 4]
    record_bytes = 8 + 4 + len(_example().SerializeToString()) + 4
    assert index.offsets.tolist() == [0, record_bytes, 2 * record_bytes, 0, record_bytes]
    places = [f'{shards[file]}, record {record}' for file, record in [(0, 0), (0, 1), (0, 2), (2, 0), (2, 1)]]
    assert [index.describe(record) for record in range(len(index))] == places


@pytest.mark.parametrize('missing_bytes', [1, 4, 20, -1, -9])
def test_truncated_file_is_named_with_its_record(shards: list[str], missing_bytes: int) -> None:
    """If `missing_bytes` is negative, that many bytes of the second record's header remain."""
    path = shards[2]
    second = int(tfrecord.index_files([path]).offsets[1])
    size = os.path.getsize(path)
    size = size - missing_bytes if missing_bytes > 0 else second - missing_bytes
    os.truncate(path, size)
    with pytest.raises(InputError) as raised:
        tfrecord.index_files(shards)
    assert str(raised.value) == (
        f'{path}: truncated or corrupt: record 1, which begins at byte {second}, ends beyond the end of the file '
        f'({size} bytes); make or copy this file again'
    )


def test_garbage_is_refused(tmp_path: Path) -> None:
    (tmp_path / 'garbage').write_bytes(b'\x1f\x8b\x08\x00' * 9)
    with pytest.raises(InputError, match='garbage: truncated or corrupt: record 0, which begins at byte 0, '):
        tfrecord.index_files([str(tmp_path / 'garbage')])


@pytest.fixture
def slow_scan(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Makes every scan seem to take a minute; returns the list to which each adds its files."""
    clock = iter(range(0, 10_000, 60))
    scans: list[list[str]] = []
    scan_files = tfrecord._scan_files

    def scan(paths):
        scans.append(list(paths))
        return scan_files(paths)

    monkeypatch.setattr(tfrecord.time, 'monotonic', lambda: next(clock))
    monkeypatch.setattr(tfrecord, '_scan_files', scan)
    return scans


def _hidden_files(folder: Path) -> list[str]:
    return sorted(name for name in os.listdir(folder) if name.startswith('.'))


def test_slow_index_is_kept_and_used_again(shards: list[str], slow_scan: list[list[str]], tmp_path: Path) -> None:
    first, again = tfrecord.index_files(shards), tfrecord.index_files(shards)
    assert slow_scan == [shards]
    assert _hidden_files(tmp_path) == ['.a.3.index.npz']
    assert first.paths == again.paths
    np.testing.assert_array_equal(first.file_numbers, again.file_numbers)
    np.testing.assert_array_equal(first.offsets, again.offsets)
    assert _labels(again) == [0, 1, 2, 3, 4]


def _append_record(shards: list[str]) -> None:
    with open(shards[0], 'ab') as file:
        file.write(Path(shards[2]).read_bytes())


def _rename(shards: list[str]) -> None:
    os.rename(shards[2], f'{shards[2]}2')
    shards[2] = f'{shards[2]}2'


def _replace_cache(content: bytes) -> Callable[[list[str]], None]:
    def replace(shards: list[str]) -> None:
        Path(shards[0]).with_name('.a.3.index.npz').write_bytes(content)

    return replace


STALE_INDEX: dict[str, Callable[[list[str]], None]] = {
    'a file has grown': _append_record,
    'a file is newer': lambda shards: os.utime(shards[0], (1, 1)),
    'another file': _rename,
    'empty index': _replace_cache(b''),
    'index of garbage': _replace_cache(b'garbage'),
    'truncated index': _replace_cache(b'PK\x03\x04'),
}


@pytest.mark.parametrize('case', STALE_INDEX)
def test_stale_index_is_made_again(shards: list[str], slow_scan: list[list[str]], case: str) -> None:
    tfrecord.index_files(shards)
    STALE_INDEX[case](shards)
    index = tfrecord.index_files(shards)
    assert len(slow_scan) == 2
    assert _labels(index) == [0, 1, 2, *([3, 4] if case == 'a file has grown' else []), 3, 4]


def test_an_index_of_other_numbers_is_not_believed(
    shards: list[str], slow_scan: list[list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    tfrecord.index_files(shards)
    path = Path(shards[0]).with_name('.a.3.index.npz')
    with np.load(path) as arrays:
        columns = {**arrays, 'offsets': arrays['offsets'] + 1}
    np.savez(path, **columns)
    assert _labels(tfrecord.index_files(shards)) == [0, 1, 2, 3, 4]
    assert f'{path}: damaged, or of another version; the index is built again' in caplog.text


def test_index_is_not_kept_where_nothing_can_be_written(
    shards: list[str], slow_scan: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args, **kwargs):
        raise PermissionError

    monkeypatch.setattr(np, 'savez', refuse)  # the permissions of a folder do not stop an administrator
    assert [len(tfrecord.index_files(shards)) for _ in range(2)] == [5, 5]
    assert len(slow_scan) == 2
    assert _hidden_files(tmp_path) == []


# The embedded digits


def _digits(path: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    def decode(record: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        example = tfrecord.parse_example(record)
        return tf.io.decode_png(example['image']), example['label']

    records = tf.data.TFRecordDataset(str(path / f'digits_{split}.tfrecord'))
    ((pixels, labels),) = records.map(decode).batch(2000)
    return pixels.numpy(), labels.numpy()


def test_digits_are_scikit_learns(digits_dir: Path) -> None:
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    is_test = np.arange(1797) % 5 == 0
    for split, chosen in (('train', ~is_test), ('test', is_test)):
        pixels, of_split = _digits(digits_dir, split)
        np.testing.assert_array_equal(of_split, labels[chosen])
        assert pixels.dtype == np.uint8
        assert (pixels.min(), pixels.max()) == (0, 255)
        np.testing.assert_allclose(pixels.reshape(-1, 64) / 255 * 16, images[chosen], atol=0.5 / 255 * 16)
        assert np.bincount(of_split).min() > 0.07 * len(of_split)  # each class has about a tenth


def test_digits_are_the_same_bytes_every_time(digits_dir: Path, tmp_path: Path) -> None:
    digits.write(str(tmp_path / 'a' / 'new' / 'folder'))
    files = ['digits_test.tfrecord', 'digits_train.tfrecord', 'labels.txt']
    assert sorted(os.listdir(tmp_path / 'a' / 'new' / 'folder')) == files
    for name in files:
        assert (tmp_path / 'a' / 'new' / 'folder' / name).read_bytes() == (digits_dir / name).read_bytes()


def test_digits_are_written_once_into_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    folder = tmp_path / 'tf_slim_image_classification' / 'digits'
    assert get_dataset('digits', None, 'test').dataset_dir == str(folder)
    written = {name: os.stat(folder / name).st_mtime_ns for name in os.listdir(folder)}
    assert get_dataset('digits', None, 'test').num_examples == 360
    assert {name: os.stat(folder / name).st_mtime_ns for name in os.listdir(folder)} == written


@pytest.mark.parametrize('name', ['digits_train.tfrecord', 'digits_test.tfrecord', 'labels.txt'])
def test_incomplete_digits_are_written_again(digits_dir: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(digits_dir, tmp_path / 'digits')
    (tmp_path / 'digits' / name).unlink()
    dataset = get_dataset('digits', str(tmp_path / 'digits'), 'train')
    assert (dataset.num_examples, len(dataset.label_names)) == (1437, 10)


def test_folder_that_digits_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / 'file').touch()
    path = str(tmp_path / 'file' / 'digits')
    message = f'^cannot write digits to {re.escape(path)}: .*; choose another --dataset_dir$'
    with pytest.raises(InputError, match=message):
        get_dataset('digits', path, 'train')
