"""The converter as a whole: what it writes, whatever happens to it on the way, and what `--verify` finds."""

import contextlib
import fnmatch
import hashlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import tensorflow as tf
from PIL import Image

from configs.conversion import ConvertConfig, RecordOptions
from configs.options import make_config
from datasets import tfrecord
from datasets.conversion import convert, recipe, shards, verify
from datasets.conversion.journal import JOURNAL, LOCK, Journal
from datasets.conversion.workers import WorkerPool
from datasets.dataset_factory import DATASETS, get_dataset
from datasets.source import Source, SourceImage, shuffled
from support.errors import InputError
from tests.runs import files, flip
from tests.scripts import ROOT, wait_until
from tests.sources import convert_to, mnist_contents, png_header, write_files

SharedPath = Callable[[str], Path]
IMAGENET: dict[str, Any] = {'name': 'imagenet', 'train_shards': 2, 'validation_shards': 2}


def _contents(folder: Path) -> dict[str, bytes]:
    return {name: content for name, (_, content) in files(folder).items()}


def _features(path: Path) -> list[Any]:
    records = tf.data.TFRecordDataset(str(path))
    return [tf.train.Example.FromString(record.numpy()).features.feature for record in records]


@pytest.fixture(scope='module')
def raw_mini(shared_path: SharedPath) -> Path:
    return shared_path('data/imagenet_raw_mini')


@pytest.fixture(scope='module')
def converted(raw_mini: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The miniature of ImageNet, for tests that only look at it."""
    return convert_to(raw_mini, tmp_path_factory.mktemp('converted') / 'records', num_processes=2, **IMAGENET)


@pytest.fixture
def copy(converted: Path, tmp_path: Path) -> Path:
    """The same, for tests that change it."""
    return Path(shutil.copytree(converted, tmp_path / 'copy'))


@pytest.fixture(scope='module')
def folder(raw_mini: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 photographs in two classes, those of the miniature again and again."""
    path = tmp_path_factory.mktemp('photos')
    photos = sorted(photo for photo in raw_mini.glob('train/*/*_1.JPEG'))
    for i in range(400):
        (path / 'ab'[i % 2]).mkdir(exist_ok=True)
        (path / 'ab'[i % 2] / f'{i}.jpg').symlink_to(photos[i % len(photos)])
    return path


# What is written


def test_the_same_bytes_with_one_process_and_with_two(converted: Path, raw_mini: Path, tmp_path: Path) -> None:
    assert _contents(convert_to(raw_mini, tmp_path, num_processes=1, **IMAGENET)) == _contents(converted)


def test_a_second_run_has_nothing_to_do(converted: Path, raw_mini: Path, capsys: pytest.CaptureFixture) -> None:
    before = files(converted)
    convert_to(raw_mini, converted, **IMAGENET)
    assert f'nothing to do: {converted} is complete' in capsys.readouterr().out
    assert files(converted) == before


def test_imagenet_is_read_as_it_was_made(converted: Path, raw_mini: Path) -> None:
    for split, pattern in {'train': 'train/*/*', 'validation': 'validation/*'}.items():
        dataset = get_dataset('imagenet', str(converted), split)
        assert dataset.num_examples == len(list(raw_mini.glob(pattern)))
        assert (dataset.num_classes, dataset.label_names[0]) == (1001, 'background')
        for path in converted.glob(f'{split}-*'):
            for features in _features(path):
                label, wnid = features['image/class/label'].int64_list.value[0], dataset.label_names
                name = features['image/filename'].bytes_list.value[0].decode()
                assert wnid[label].encode() == features['image/class/synset'].bytes_list.value[0]
                assert split == 'validation' or name.startswith(wnid[label])


def test_imagenet_has_the_keys_and_types_of_slims(converted: Path, shared_path: SharedPath) -> None:
    (ours, *_), (slims, *_) = (
        _features(path)
        for path in (
            converted / 'train-00000-of-00002',
            shared_path('goldens/tfrecords/imagenet') / 'train-00000-of-00002',
        )
    )
    assert {key: ours[key].WhichOneof('kind') for key in ours} == {key: slims[key].WhichOneof('kind') for key in slims}
    for key in ('image/colorspace', 'image/channels', 'image/format'):
        assert ours[key] == slims[key]


def test_png_and_cmyk_become_rgb_jpeg_and_the_others_stay(converted: Path, raw_mini: Path) -> None:
    originals = {path.name: path.read_bytes() for path in raw_mini.glob('*/**/*.JPEG')}
    changed = {}
    for path in converted.glob('*-of-*'):
        for features in _features(path):
            name = features['image/filename'].bytes_list.value[0].decode()
            encoded = features['image/encoded'].bytes_list.value[0]
            shape = tf.io.extract_jpeg_shape(encoded).numpy().tolist()
            sides = [features[f'image/{side}'].int64_list.value[0] for side in ('height', 'width')]
            assert shape[:2] == sides
            if encoded != originals[name]:
                changed[name] = (shape, _difference(encoded, originals[name]))
    assert [(name, shape) for name, (shape, _) in sorted(changed.items())] == [
        ('n02105855_2933.JPEG', [375, 500, 3]),
        ('n02447366_23489.JPEG', [333, 500, 3]),
    ]
    assert all(difference <= 4 for _, difference in changed.values())


def _difference(encoded: bytes, original: bytes) -> float:
    """Returns the largest difference of pixels, in gray levels."""
    if tf.io.is_jpeg(original):
        expected = tf.io.decode_jpeg(original, channels=3, dct_method='INTEGER_ACCURATE')
    else:
        expected = tf.io.decode_png(original, channels=3)
    actual = tf.io.decode_jpeg(encoded, channels=3, dct_method='INTEGER_ACCURATE')
    return float(np.abs(actual.numpy().astype(int) - expected.numpy()).max())


def test_dataset_json_counts_what_was_written(converted: Path, raw_mini: Path) -> None:
    described = json.loads((converted / 'dataset.json').read_text())
    assert described['changed'] == {'CMYK to RGB': 1, 'PNG to JPEG': 1}
    assert described['skipped'] == []
    assert {split: content['images'] for split, content in described['splits'].items()} == {
        'train': 25,
        'validation': 12,
    }
    for content in described['splits'].values():
        assert sum(content['images_per_class']) == sum(shard['images'] for shard in content['shards'])
        assert len(content['images_per_class']) == len(described['class_names']) == 1001
        for shard in content['shards']:
            assert (converted / shard['file']).stat().st_size == shard['bytes']
    assert str(raw_mini) not in (converted / 'dataset.json').read_text()


def test_a_summary_is_printed(raw_mini: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    convert_to(raw_mini, tmp_path, resize_shorter_side=128, **IMAGENET)
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r'train: 25 images in 2 files, 0\.\d MB; 14 classes of 1 to 2 images \(median 2\)', lines[0])
    assert lines[2] == 'images of each of the 1,001 classes: dataset.json, images_per_class'
    assert lines[3:6] == ['changed, CMYK to RGB: 1', 'changed, PNG to JPEG: 1', 'changed, resized: 37']
    assert re.fullmatch(rf'{tmp_path} is complete: 37 images converted in [\d.]+ s, \d+ images/s', lines[6])
    for features in _features(tmp_path / 'train-00000-of-00002'):
        assert min(features[f'image/{side}'].int64_list.value[0] for side in ('height', 'width')) == 128


def test_a_summary_of_few_classes_counts_the_images_of_each(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    counts = {'train/Gänseblümchen': 3, 'train/薔薇': 1, 'validation/薔薇': 2}
    for name, count in counts.items():
        (tmp_path / 'photos' / name).mkdir(parents=True)
        for i in range(count):
            Image.new('RGB', (8, 8)).save(tmp_path / 'photos' / name / f'{i}.png')
    convert_to(tmp_path / 'photos', tmp_path / 'records')
    assert capsys.readouterr().out.splitlines()[2:5] == [
        'images per class  train  validation',
        'Gänseblümchen         3           0',
        '薔薇                    1           2',
    ]


@pytest.mark.full
def test_names_that_the_terminal_lacks_are_printed_all_the_same(tmp_path: Path) -> None:
    for name in ('Gänseblümchen', '薔薇'):
        (tmp_path / 'photos' / name).mkdir(parents=True)
        Image.new('RGB', (8, 8)).save(tmp_path / 'photos' / name / '1.png')
    environment = {**os.environ, 'PYTHONIOENCODING': 'ascii'}
    command = _command(tmp_path / 'photos', tmp_path / 'records')
    finished = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120)
    assert (finished.returncode, 'Traceback' in finished.stderr) == (0, False), finished.stderr
    assert re.search(r'^G\\xe4nsebl\\xfcmchen +1$', finished.stdout, re.MULTILINE)


def test_a_flag_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    folder = os.fsencode(tmp_path) + b'/\xff'
    command = [os.fsencode(part) for part in _command(tmp_path, tmp_path / 'records')[:3]] + [b'--source_dir=' + folder]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 1
    assert finished.stderr == (
        f"error: --source_dir='{tmp_path}/\\udcff': not UTF-8, which TensorFlow requires for names; rename it\n"
    )


@pytest.mark.full
def test_several_processes_write_one_file(folder: Path, tmp_path: Path) -> None:
    """More pieces than one: they are joined in order."""
    one = convert_to(folder, tmp_path / 'one', num_processes=1)
    three = convert_to(folder, tmp_path / 'three', num_processes=3)
    assert _contents(one) == _contents(three)
    assert sorted(path.name for path in one.iterdir()) == [
        JOURNAL,
        LOCK,
        'dataset.json',
        'labels.txt',
        'train-00000-of-00001',
    ]
    features = _features(one / 'train-00000-of-00001')
    assert len(features) == 400
    assert set(features[0]) == {f'image/{key}' for key in ('encoded', 'format', 'class/label', 'height', 'width')}
    assert features[0]['image/format'].bytes_list.value == [b'jpg']
    labels = [each['image/class/label'].int64_list.value[0] for each in features]
    assert labels.count(0) == labels.count(1) == 200
    assert sum(labels[:100]) not in (0, 100)  # shuffled
    assert (one / 'labels.txt').read_text() == '0:a\n1:b\n'


@pytest.mark.parametrize('name', ['cifar10', 'flowers', 'imagenet', 'mnist'])
def test_files_are_named_as_the_reader_finds_them(name: str) -> None:
    layout, spec = recipe.layout_of(name), DATASETS[name]
    for split in spec.splits:
        file = layout.pattern.format(split=split, number=0, count=5)
        assert fnmatch.fnmatchcase(file, spec.file_pattern.format(split=split))
        assert fnmatch.fnmatchcase(file, layout.glob(split))
        assert layout.one_file or layout.shards[split] in (5, 1024, 128)


def test_mnist_is_one_file_a_split(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, [50, 28, 28], np.uint8)
    source = write_files(tmp_path / 'source', mnist_contents(pixels, [i % 10 for i in range(50)], num_train=30))
    dataset_dir = convert_to(source, tmp_path / 'records', 'mnist')
    assert get_dataset('mnist', str(dataset_dir), 'train').num_examples == 30
    (first, *_) = _features(dataset_dir / 'mnist_test.tfrecord')
    assert first['image/format'].bytes_list.value == [b'png']
    with pytest.raises(InputError, match=r'^--train_shards=2: a split of this data set is one file, mnist_train\.tf'):
        convert_to(source, tmp_path / 'other', 'mnist', train_shards=2)


# Order and shards


def _images(count: int, size: int = 1) -> tuple[SourceImage, ...]:
    return tuple(SourceImage(f'train/{i}.jpg', f'{i}.jpg', 0, size, 0) for i in range(count))


def test_shards_are_nearly_equal_and_hold_every_image_once() -> None:
    planned = shards.plan_shards({'train': _images(10)}, {'train': 3}, '{split}-{number:05d}-of-{count:05d}')
    assert [shard.file for shard in planned] == [f'train-0000{number}-of-00003' for number in range(3)]
    assert [len(shard.images) for shard in planned] == [3, 3, 4]
    assert sorted(image.name for shard in planned for image in shard.images) == sorted(im.name for im in _images(10))


def test_order_is_that_of_the_names_alone() -> None:
    images = _images(1000)
    order = shuffled(images)
    assert shuffled(images[::-1]) == order
    positions = [int(image.name.split('/')[1].split('.')[0]) for image in order]
    assert abs(np.corrcoef(positions, np.arange(1000))[0, 1]) < 0.1


@pytest.mark.parametrize(
    ('count', 'size', 'expected'), [(10, 1, 1), (4, 2**30, 4), (1000, 2**20, 8), (100, 2**30, 100)]
)
def test_default_number_of_shards_follows_from_the_size(count: int, size: int, expected: int) -> None:
    assert shards.default_count(_images(count, size)) == expected


# Interrupted, and started again


def _command(source_dir: Path, dataset_dir: Path, *flags: str) -> list[str]:
    script = str(ROOT / 'download_and_convert_data.py')
    folders = (f'--source_dir={source_dir}', f'--dataset_dir={dataset_dir}')
    return [sys.executable, script, '--dataset_name=image_folder', *folders, '--num_processes=2', *flags]


def _alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() != psutil.STATUS_ZOMBIE
    return False


def _interrupt(command: list[str], dataset_dir: Path, number: int) -> tuple[int, str]:
    """Sends a signal once one more file is finished; returns the exit status and standard error."""
    before = len(list(dataset_dir.glob('train-*')))
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: process.poll() is not None or len(list(dataset_dir.glob('train-*'))) > before)
    assert process.poll() is None, 'ended before it was interrupted'
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 3  # the server, and two workers
    process.send_signal(number)
    errors = process.communicate(timeout=60)[1]
    wait_until(lambda: not any(map(_alive, family)))
    return process.returncode, errors


def test_killed_and_terminated_it_goes_on_to_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    flags = ('--train_shards=40', '--resize_shorter_side=200')
    dataset_dir = tmp_path / 'interrupted'
    command = _command(folder, dataset_dir, *flags)

    status, _ = _interrupt(command, dataset_dir, signal.SIGKILL)
    assert status == -signal.SIGKILL
    assert not (dataset_dir / 'dataset.json').exists()
    kept = files(dataset_dir)

    (dataset_dir / '.train-00001-of-00040.0.1.part').touch()  # as one that was killed may leave it
    status, errors = _interrupt(command, dataset_dir, signal.SIGTERM)
    assert status == 128 + signal.SIGTERM
    assert errors.splitlines()[-1] == 'SIGTERM: finished files are kept; the same command goes on'
    assert (
        f'resuming: {10 * sum(name.startswith("train") for name in kept)} of 400 images are in finished files' in errors
    )
    assert not list(dataset_dir.glob('.*.part'))

    with pytest.raises(InputError, match=r'holds another conversion \(jpeg_quality was 90, is 80\); go on with'):
        convert_to(folder, dataset_dir, train_shards=40, resize_shorter_side=200, jpeg_quality=80)
    convert_to(folder, dataset_dir, train_shards=40, resize_shorter_side=200)
    whole = convert_to(folder, tmp_path / 'whole', train_shards=40, resize_shorter_side=200)
    assert _contents(dataset_dir) == _contents(whole)
    for name, (changed, _) in kept.items():
        if name.startswith('train'):
            assert files(dataset_dir)[name][0] == changed


@pytest.mark.full
def test_a_full_disk_leaves_only_whole_files(folder: Path, tmp_path: Path) -> None:
    """A limit on the size of files fails the writes of real processes as a full disk does."""

    def limit_file_size() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    command = _command(folder, tmp_path / 'records')
    finished = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit_file_size, timeout=120)
    assert finished.returncode == 1
    assert finished.stderr.splitlines()[-1] == (
        f'error: cannot write to {tmp_path}/records: File too large; finished files are kept; fix this, and the same '
        'command resumes'
    )
    assert sorted(path.name for path in (tmp_path / 'records').iterdir()) == [JOURNAL, LOCK, 'labels.txt']


LOST: dict[str, Callable[[Path], object]] = {
    'labels.txt': lambda folder: (folder / 'labels.txt').unlink(),
    'a shard': lambda folder: (folder / 'train-00001-of-00002').unlink(),
    'the end of the journal': lambda folder: (folder / JOURNAL).write_bytes((folder / JOURNAL).read_bytes()[:-20]),
}


@pytest.mark.parametrize('lose', LOST.values(), ids=LOST)
def test_what_was_lost_is_made_again(
    copy: Path, converted: Path, raw_mini: Path, lose: Callable[[Path], object]
) -> None:
    lose(copy)
    assert _contents(convert_to(raw_mini, copy, **IMAGENET)) == _contents(converted)


def test_a_second_converter_is_refused(raw_mini: Path, tmp_path: Path) -> None:
    message = (
        f'^--dataset_dir={tmp_path}: in use by another converter, process {os.getpid()} on .*another --dataset_dir$'
    )
    with Journal(str(tmp_path)) as journal:
        with pytest.raises(InputError, match=message):
            convert_to(raw_mini, tmp_path, **IMAGENET)
        journal.begin({'dataset_name': 'imagenet'}, [])
        journal.sort([])  # replaces the journal
        with pytest.raises(InputError, match=message):
            convert_to(raw_mini, tmp_path, **IMAGENET)


ROW = {
    'file': 'train-00000-of-00001', 'split': 'train', 'source': 'a', 'size': 1, 'sha256': 'b', 'labels': {'0': 1},
    'skipped': [], 'changes': {},
}  # fmt: skip
BAD_JOURNALS: dict[str, tuple[Any, str]] = {
    'garbage': ('garbage\n', 'line 1: Expecting value'),
    'a list': ('[]\n', 'line 1: it is [], and must be an object'),
    'a row that is none': ('{}\n7\n', 'line 2: it is 7, and must be an object'),
    'another type': ({'labels': 5}, 'line 2: labels is 5, and must be an object'),
    'a label': ({'labels': {'x': 1}}, "line 2: labels are ['x'], and must be numbers"),
    'no pair': ({'skipped': [['a']]}, 'line 2: skipped are no pairs of name and reason'),
    'out of the folder': ({'file': '../a'}, "line 2: the file '../a' is not one of this folder"),
    'a field more': ({'more': 1}, "line 2: 'more' is no field of it"),
    'depth': (f'{"[" * 10**5}\n', 'line 1: maximum recursion depth exceeded'),
}


@pytest.mark.parametrize('case', BAD_JOURNALS)
def test_a_damaged_journal_is_refused(raw_mini: Path, tmp_path: Path, case: str) -> None:
    content, problem = BAD_JOURNALS[case]
    text = content if isinstance(content, str) else f'{{}}\n{json.dumps({**ROW, **content})}\n'
    (tmp_path / JOURNAL).write_text(text)
    message = f'{tmp_path}/{JOURNAL}: not a journal of this converter; delete it, or its folder ({problem}'
    with pytest.raises(InputError, match=re.escape(message)):
        convert_to(raw_mini, tmp_path, **IMAGENET)


def test_a_pipe_for_a_journal_is_refused(raw_mini: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / JOURNAL)
    with pytest.raises(
        InputError, match=rf'{JOURNAL}: is a folder, a pipe or a device; must be a regular file; remove it'
    ):
        convert_to(raw_mini, tmp_path, **IMAGENET)


@pytest.mark.parametrize(('count', 'files'), [(1023, 1), (1024, 1024), (2000, 1024)])
def test_slims_numbers_of_shards_stay(count: int, files: int) -> None:
    images = tuple(SourceImage(f'train/{i}', 'a', 0, 10, 1) for i in range(count))
    source = Source({'train': images}, ('background', 'a'))
    assert convert.shard_counts(RecordOptions(), recipe.layout_of('imagenet'), source) == {'train': files}


def test_a_task_that_fails_or_is_killed_ends_the_work() -> None:
    with WorkerPool(2, os.getpid) as pool:
        pool.submit('a', len, 'abc')
        pool.submit('b', len, 'abcd')
        assert sorted(pool.results()) == [('a', 3), ('b', 4)]
        pool.submit('c', int, 'no number')
        with pytest.raises(RuntimeError, match=r'(?s)a worker process failed:.*ValueError: invalid literal for int'):
            list(pool.results())
    with WorkerPool(1, os.getpid) as pool:
        pool.submit('d', signal.raise_signal, signal.SIGKILL)
        message = 'ended with exit code -9 .killed, perhaps out of memory; try fewer --num_processes'
        with pytest.raises(InputError, match=message):
            list(pool.results())


# Unreadable images


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """Sixty small images in two classes, two of which cannot be read."""
    path = tmp_path / 'photos'
    for i in range(60):
        (path / 'ab'[i % 2]).mkdir(parents=True, exist_ok=True)
        Image.effect_noise((16, 16), i).save(path / 'ab'[i % 2] / f'{i}.png')
    (path / 'a' / '10.png').write_bytes((path / 'a' / '10.png').read_bytes()[:100])
    (path / 'b' / '33.png').write_text('not an image')
    return path


def test_an_unreadable_image_stops_the_conversion(damaged: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        convert_to(damaged, tmp_path / 'records', train_shards=4)
    path, reason = str(raised.value).split(': ', 1)
    assert path in (str(damaged / 'a' / '10.png'), str(damaged / 'b' / '33.png'))
    assert reason.split('; ')[0] in (
        'a PNG that is damaged or cut short',
        'not an image in a known format (JPEG, PNG, GIF, BMP, WebP)',
    )
    assert 'allow N unreadable ones with --max_bad_images=N (=0)' in reason
    assert not list((tmp_path / 'records').glob('.*.part'))


def test_as_many_as_are_allowed_are_left_out_and_listed(
    damaged: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """On the whole, not for each file or process; and the bytes are the same whether it was stopped before or not."""
    records = tmp_path / 'records'
    with pytest.raises(InputError, match=r'--max_bad_images=N \(=1\)'):
        convert_to(damaged, records, train_shards=4, max_bad_images=1, num_processes=1)
    convert_to(damaged, records, train_shards=4, max_bad_images=2)
    assert 'left out: train/a/10.png: a PNG that is damaged or cut short' in capsys.readouterr().out.splitlines()
    described = json.loads((records / 'dataset.json').read_text())
    assert sorted(skipped['image'] for skipped in described['skipped']) == ['train/a/10.png', 'train/b/33.png']
    assert described['splits']['train']['images_per_class'] == [29, 29]
    at_once = convert_to(damaged, tmp_path / 'at_once', train_shards=4, max_bad_images=5)
    assert _contents(at_once) == _contents(records)
    (records / described['splits']['train']['shards'][0]['file']).unlink()
    with contextlib.suppress(InputError):
        convert_to(damaged, records, train_shards=4)  # either finished files have too many, or the others
    assert _verify(at_once) == 0


# What is refused before any work


# options beside name and folders -> message; `{source}` and `{records}` are the folders
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    'no name': (
        {'dataset_name': None},
        '--dataset_name is missing: imagenet, image_folder, cifar10, mnist, flowers or',
    ),
    'misspelt name': (
        {'dataset_name': 'imagnet'},
        "unknown dataset_name 'imagnet' (did you mean 'imagenet'?); valid: cifar10, flowers, image_folder, imagenet, "
        'mnist, tfds:<name>',
    ),
    'no dataset_dir': ({'dataset_dir': None}, '--dataset_dir is missing: the folder for the TFRecords'),
    'folder elsewhere': (
        {'dataset_dir': 'foo://x'},
        '--dataset_dir=foo://x: must be a folder on this machine, without ://',
    ),
    'no source_dir': ({'source_dir': None}, '--source_dir is missing: the folder of the images of image_folder'),
    'missing source': ({'source_dir': '/no/such'}, '--source_dir=/no/such: no such folder'),
    'source is a device': (
        {'source_dir': '/dev/null'},
        '--source_dir=/dev/null: not a readable folder: Not a directory',
    ),
    'quality of nothing': (
        {'jpeg_quality': 80},
        '--jpeg_quality=80: applies only to shrunken images; give --resize_shorter_side too, or leave it out',
    ),
    'quality of PNGs': (
        {'dataset_name': 'mnist', 'jpeg_quality': 80, 'resize_shorter_side': 20},
        '--jpeg_quality=80: the images of this data set stay PNGs; leave it out',
    ),
    'into the source': (
        {'dataset_dir': '{source}'},
        '--dataset_dir={source}: must be outside --source_dir={source}',
    ),
    'below the source': (
        {'dataset_dir': '{source}/records'},
        '--dataset_dir={source}/records: must be outside --source_dir={source}',
    ),
    'into a file': ({'dataset_dir': '{source}/../file/x'}, 'cannot be written to: Not a directory'),
    'flag of another data set': (
        {'class_names_file': 'names.txt'},
        '--class_names_file=names.txt: only for --dataset_name=imagenet, not for image_folder',
    ),
    'too many shards': ({'train_shards': 9}, '--train_shards=9 (or by default): split train has only 4 images'),
    'empty class folder': ({'source_dir': '{source}/../empty'}, '/empty/a: the class folder holds no images'),
}


@pytest.mark.parametrize('case', REFUSED)
def test_what_cannot_work_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    options, message = REFUSED[case]
    monkeypatch.chdir(tmp_path)
    source = tmp_path / 'source'
    for name in 'ab':
        (source / name).mkdir(parents=True)
        (tmp_path / 'empty' / name).mkdir(parents=True)
        for i in range(2):
            Image.new('RGB', (8, 8)).save(source / name / f'{i}.png')
    (tmp_path / 'file').touch()
    values = {'dataset_name': 'image_folder', 'source_dir': '{source}', 'dataset_dir': str(tmp_path / 'records')}
    values = {
        key: value.format(source=source) if isinstance(value, str) else value
        for key, value in {**values, **options}.items()
    }
    with pytest.raises(InputError) as raised:
        convert.convert(make_config(ConvertConfig, **values))
    assert message.format(source=source) in str(raised.value)
    assert not (tmp_path / 'foo:').exists()
    assert not (tmp_path / 'records').exists() or sorted(os.listdir(tmp_path / 'records')) == [JOURNAL, LOCK]


def test_files_of_others_are_not_touched(raw_mini: Path, tmp_path: Path) -> None:
    for name in ('train-00000-of-00007', 'labels.txt', 'dataset.json'):
        dataset_dir = tmp_path / name.replace('.', '_')
        dataset_dir.mkdir()
        (dataset_dir / name).write_text('of another program')
        with pytest.raises(
            InputError, match=f'holds {name}, which this converter did not write; choose another folder'
        ):
            convert_to(raw_mini, dataset_dir, **IMAGENET)
        assert (dataset_dir / name).read_text() == 'of another program'


def test_a_source_that_has_changed_is_refused(damaged: Path, tmp_path: Path) -> None:
    records = convert_to(damaged, tmp_path / 'records', max_bad_images=2)
    before = _contents(records)
    (damaged / 'a' / '10.png').unlink()
    message = 'train-00000-of-00001 there was made from other images than the source has now; choose another folder'
    with pytest.raises(InputError, match=message):
        convert_to(damaged, records, max_bad_images=2)
    assert _contents(records) == before


# --verify


def _verify(dataset_dir: Path) -> int:
    return verify.verify(make_config(ConvertConfig, dataset_dir=str(dataset_dir), verify=True))


def test_a_whole_data_set_is_verified(converted: Path, capsys: pytest.CaptureFixture) -> None:
    assert _verify(converted) == 0
    assert capsys.readouterr().out == 'verified 37 images in 4 files\n'


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


def _rewrite(path: Path, change: Callable[[tf.train.Example], None]) -> None:
    """Changes the first record of a file, and lets dataset.json say that it has to be so."""
    records = [tf.train.Example.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(path))]
    change(records[0])
    tfrecord.write_records(str(path), records)
    manifest_path = path.with_name('dataset.json')
    described = json.loads(manifest_path.read_text())
    for shard in described['splits']['train']['shards']:
        if shard['file'] == path.name:
            with open(path, 'rb') as file:
                shard['sha256'] = hashlib.file_digest(file, 'sha256').hexdigest()
            shard['bytes'] = path.stat().st_size
    manifest_path.write_text(json.dumps(described))


def _set(key: str, change: Callable[[Any], Any]) -> Callable[[Path], None]:
    """Returns a function that changes the value of a key in the first record of a file."""

    def apply(example: tf.train.Example) -> None:
        feature = example.features.feature[key]
        values = getattr(feature, feature.WhichOneof('kind')).value
        values[:] = [change(values[0])]

    return lambda path: _rewrite(path, apply)


def _rename(path: Path) -> None:
    described = json.loads(path.with_name('dataset.json').read_text())
    path.with_name('dataset.json').write_text(json.dumps({**described, 'name': 'imagnet'}))


# what happens to a file -> what is found
DAMAGES: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    'a byte': (
        flip,
        ['{file}: its SHA-256 is not that of dataset.json', '{file}, record [0-9]+: a checksum does not'],
    ),
    'cut short': (
        _cut,
        ['{file}: has [0-9,]+ bytes, and [0-9,]+ in dataset.json', '{file}, record 11: a checksum does'],
    ),
    'missing': (Path.unlink, ['{file}: No such file or directory']),
    'another file': (
        lambda path: shutil.copy(path, path.with_name('train-00000-of-00003')),
        ['train-00000-of-00003: not'],
    ),
    'labels.txt': (lambda path: path.with_name('labels.txt').write_text('0:x\n'), ['labels.txt: its classes are not']),
    'no labels.txt': (lambda path: path.with_name('labels.txt').unlink(), ['labels.txt: ']),
    'a label outside': (
        _set('image/class/label', lambda _: 2000),
        ['{file}, record 0: its label is 2000; there are 1001 classes'],
    ),
    'another label': (
        _set('image/class/label', lambda _: 7),
        ['dataset.json: split train has other numbers of images per class than'],
    ),
    'a spoilt image': (
        _set('image/encoded', lambda data: data[:200]),
        ['{file}, record 0: its image cannot be decoded: '],
    ),
    'a bomb': (
        _set('image/encoded', lambda _: png_header(20_000, 20_000)),
        ['{file}, record 0: its image cannot be decoded: 20000 x 20000 pixels are more than the 89,478,485'],
    ),
    'another name': (_rename, ["dataset.json: unknown dataset_name 'imagnet'"]),
    'another size': (
        _set('image/height', lambda _: 1),
        ['{file}, record 0: its image has [0-9]+ x [0-9]+ pixels, and the record says'],
    ),
}


@pytest.mark.quick('a byte', 'missing', 'another label')
@pytest.mark.parametrize('case', DAMAGES)
def test_verify_names_what_is_wrong(copy: Path, capsys: pytest.CaptureFixture, case: str) -> None:
    damage, expected = DAMAGES[case]
    path = copy / 'train-00000-of-00002'
    damage(path)
    assert _verify(copy) == 1
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith('error: ')]
    assert len(errors) == len(expected), errors
    for error, pattern in zip(errors, expected, strict=True):
        assert re.match(f'error: {re.escape(str(copy))}/{pattern.format(file=path.name)}', error), error


def test_verify_needs_a_complete_data_set(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r'dataset.json: No such file or directory; it is written when a conversion is'
    ):
        _verify(tmp_path)
    for text, message in (('[]', 'not a dataset.json of this converter'), ('[' * 100_000, 'damaged: ')):
        (tmp_path / 'dataset.json').write_text(text)
        with pytest.raises(InputError, match=f'dataset.json: {message}'):
            _verify(tmp_path)


# A path of keys in dataset.json, what is there instead (None: nothing), and what is said of it
BAD_MANIFESTS: dict[str, tuple[tuple[str | int, ...], Any, str]] = {
    'no channels': (('channels',), None, 'channels is missing'),
    'channels': (('channels',), 2, 'channels is 2, and must be 1 or 3'),
    'a list for an object': (('splits',), [], 'splits is [], and must be an object'),
    'no split': (('splits',), {}, 'splits is empty'),
    'no file': (('splits', 'train', 'shards'), [], 'splits.train.shards is empty'),
    'a split that is none': (('splits', 'train'), 7, 'splits.train is 7, and must be an object'),
    'words for numbers': (
        ('splits', 'train', 'shards', 1, 'bytes'),
        'many',
        "splits.train.shards[1].bytes is 'many', and must be a whole number from 0",
    ),
    'true for a number': (('splits', 'train', 'images'), True, 'splits.train.images is True, and must be a whole'),
    'negative': (('splits', 'train', 'images'), -1, 'splits.train.images is -1, and must be a whole number from 0'),
    'counts': (('splits', 'train', 'images_per_class'), [1, 2], 'images_per_class has 2 numbers for 1001 classes'),
    'a class that is no string': (('class_names', 3), {}, 'class_names[3] is {}, and must be a string'),
    'half a character': (('class_names', 3), '\ud800', "class_names[3] is '\\ud800', which is no text"),
    'another folder': (
        ('splits', 'train', 'shards', 0, 'file'),
        '../../secret',
        "splits.train has the file '../../secret', which is not one of this folder",
    ),
    'a file without a name': (('splits', 'train', 'shards', 0, 'file'), '', "splits.train has the file ''"),
    'a NUL': (('splits', 'train', 'shards', 0, 'file'), 'a\0', "splits.train has the file 'a\\x00'"),
}


@pytest.mark.parametrize('case', BAD_MANIFESTS)
def test_a_dataset_json_that_was_changed_by_hand(converted: Path, tmp_path: Path, case: str) -> None:
    keys, value, message = BAD_MANIFESTS[case]
    described = json.loads((converted / 'dataset.json').read_text())
    described['name'] = 'image_folder'  # whose dataset.json is what it is opened by
    place = described
    for key in keys[:-1]:
        place = place[key]
    if value is None:
        del place[keys[-1]]
    else:
        place[keys[-1]] = value
    (tmp_path / 'dataset.json').write_text(json.dumps(described))
    expected = re.escape(f'{tmp_path}/dataset.json: damaged, or of another version: ') + f'.*{re.escape(message)}.*'
    with pytest.raises(InputError, match=f'^{expected}; convert the data again$'):
        _verify(tmp_path)
    if not described['splits']:
        return  # such a file is another program's to a reader
    with pytest.raises(InputError, match=f'^{expected}; convert the data again$'):
        get_dataset('image_folder', str(tmp_path), 'train')
