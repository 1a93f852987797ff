"""Decoded images kept in memory or in a folder: the same examples, decoded once."""

import errno
import os
import re
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import tensorflow as tf

from configs.options import make_config
from configs.training import AugmentOptions, TrainConfig
from datasets import decoded, tfrecord
from datasets.dataset_factory import Dataset, get_dataset
from datasets.decoded import DecodedExamples, with_cache
from datasets.input_pipeline import evaluation_batches, training_batches
from preprocessing.base import Preprocessing
from preprocessing.preprocessing_factory import get_preprocessing
from support.errors import InputError

SharedPath = Callable[[str], Path]
SEED = 5
PREPROCESSINGS = [
    get_preprocessing('inception', 32, augment=AugmentOptions(use_bounding_boxes=True)),
    get_preprocessing('vgg', 64),
    get_preprocessing('cifarnet', 200),
    get_preprocessing('lenet', 28),
]


@pytest.fixture(scope='module')
def photographs(shared_path: SharedPath) -> Dataset:
    """Real photographs of several sizes, some with boxes."""
    return get_dataset('imagenet', str(shared_path('goldens/tfrecords/imagenet')), 'train')


def all_batches(dataset: Dataset, preprocessing: Preprocessing) -> list[dict[str, np.ndarray]]:
    training = training_batches(dataset, preprocessing, 4, SEED, 0).take(5)
    evaluation = evaluation_batches(dataset, preprocessing, 4)
    return [{key: value.numpy() for key, value in batch.items()} for part in (training, evaluation) for batch in part]


@pytest.mark.quick('Inception')
@pytest.mark.parametrize('preprocessing', PREPROCESSINGS, ids=lambda preprocessing: type(preprocessing).__name__)
def test_batches_are_the_same_with_a_cache(photographs: Dataset, preprocessing: Preprocessing) -> None:
    cached = with_cache(photographs, 'memory', channels=3, passes=1)
    assert isinstance(cached.examples, DecodedExamples)
    for batch, expected in zip(
        all_batches(cached, preprocessing), all_batches(photographs, preprocessing), strict=True
    ):
        for key, value in expected.items():
            np.testing.assert_array_equal(batch[key], value)


@pytest.mark.full
def test_gray_images_stay_gray(shared_path: SharedPath) -> None:
    dataset = get_dataset('mnist', str(shared_path('goldens/tfrecords/mnist')), 'test')
    cached = with_cache(dataset, 'memory', channels=1, passes=1)
    preprocessing = get_preprocessing('lenet', 28, channels=1, source_channels=1)
    for batch, expected in zip(all_batches(cached, preprocessing), all_batches(dataset, preprocessing), strict=True):
        np.testing.assert_array_equal(batch['image'], expected['image'])


def test_a_folder_is_written_once_and_found_again(
    photographs: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / 'new' / 'cache'
    with_cache(photographs, str(folder), channels=3, passes=1)
    assert {path.suffix for path in folder.iterdir()} == {'.pixels', '.npz'}
    assert len(list(folder.iterdir())) == 2
    monkeypatch.setattr(decoded, '_decode_all', None)  # what is there is used
    cached = with_cache(photographs, str(folder), channels=3, passes=1)
    np.testing.assert_array_equal(
        all_batches(cached, PREPROCESSINGS[0])[0]['image'], all_batches(photographs, PREPROCESSINGS[0])[0]['image']
    )


@pytest.mark.full
def test_another_part_of_the_data_and_other_channels_have_a_file_of_their_own(digits_dir: Path, tmp_path: Path) -> None:
    for split in ('train[:20]', 'train[20:40]'):
        for channels in (1, 3):
            with_cache(get_dataset('digits', str(digits_dir), split), str(tmp_path), channels, passes=1)
    assert len(list(tmp_path.glob('*.pixels'))) == 4


@pytest.mark.parametrize('suffix', ['.pixels', '.npz'])
@pytest.mark.parametrize('is_cut', [True, False])
def test_a_damaged_cache_is_made_again(
    digits_dir: Path, tmp_path: Path, suffix: str, is_cut: bool, caplog: pytest.LogCaptureFixture
) -> None:
    dataset = get_dataset('digits', str(digits_dir), 'train[:20]')
    with_cache(dataset, str(tmp_path), 1, passes=1)
    (path,) = tmp_path.glob(f'*{suffix}')
    whole = path.read_bytes()
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + (b'' if is_cut else bytes([whole[middle] ^ 1]) + whole[middle + 1 :]))
    with_cache(dataset, str(tmp_path), 1, passes=1)
    assert len(path.read_bytes()) == len(whole)
    assert path.read_bytes() == whole or suffix == '.npz'  # in which a time stands
    assert f'{path}: damaged' in caplog.text
    assert '; the images are decoded again' in caplog.text


@pytest.mark.parametrize('cache', ['foo://x', 'gs://bucket/cache'])
def test_a_folder_elsewhere_is_refused_at_the_start(
    cache: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits_dir: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    message = f'--cache={cache}: must be auto, memory, off, or a folder on this machine (the file is memory-mapped)'
    with pytest.raises(InputError, match=re.escape(message)):
        make_config(TrainConfig, cache=cache)
    with pytest.raises(InputError, match=re.escape(message)):
        with_cache(get_dataset('digits', str(digits_dir), 'test'), cache, 1, passes=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('max_blocks', [1, 3, 100])
def test_the_checksum_of_a_large_file_is_that_of_some_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_blocks: int
) -> None:
    content = np.random.default_rng(0).bytes(1001)
    (tmp_path / 'pixels').write_bytes(content)
    monkeypatch.setattr(decoded, '_BLOCK_BYTES', 100)
    monkeypatch.setattr(decoded, '_MAX_BLOCKS', max_blocks)
    read = {1: content[:100], 3: content[:100] + content[500:600] + content[1000:], 100: content}
    assert decoded._checksum(str(tmp_path / 'pixels')) == zlib.crc32(read[max_blocks])


def test_changed_files_are_decoded_again(tmp_path: Path) -> None:
    path = tmp_path / 'train-00000-of-00001'

    def first_pixel(value: int) -> int:
        image = tf.io.encode_png(tf.fill([8, 8, 3], tf.constant(value, tf.uint8))).numpy()
        tfrecord.write_records(str(path), [tfrecord.image_example(image, 'png', 8, 8, 1)] * 3)
        os.utime(path, ns=(value, value))
        cached = with_cache(get_dataset('imagenet', str(tmp_path), 'train'), str(tmp_path / 'cache'), 3, passes=1)
        return int(cached.examples.check(0)['image'][0, 0, 0])

    assert [first_pixel(7), first_pixel(9)] == [7, 9]


@pytest.mark.parametrize(
    ('cache', 'passes', 'limit', 'kept'),
    [
        ('auto', 2.0, 2**20, True),
        ('auto', 1.9, 2**20, False),  # it would be decoded as often
        ('auto', 2.0, 2**10, False),  # too large
        ('memory', 1.0, 2**10, True),
        ('off', 9.0, 2**20, False),
    ],
)
def test_what_is_kept(
    digits_dir: Path, monkeypatch: pytest.MonkeyPatch, cache: str, passes: float, limit: int, kept: bool
) -> None:
    monkeypatch.setattr(decoded, '_AUTO_LIMIT_BYTES', limit)
    dataset = with_cache(get_dataset('digits', str(digits_dir), 'test'), cache, 1, passes)
    assert isinstance(dataset.examples, DecodedExamples) == kept


def test_more_than_memory_is_refused(photographs: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    free = psutil.virtual_memory()._replace(available=2**10)
    monkeypatch.setattr(psutil, 'virtual_memory', lambda: free)
    with pytest.raises(InputError, match=r'--cache=memory: about 0\.0 GiB of decoded images, but 0\.0 GiB of memory'):
        with_cache(photographs, 'memory', 3, passes=1)


@pytest.mark.quick('memory')
@pytest.mark.parametrize('cache', ['memory', 'auto', 'folder'])
def test_an_image_that_cannot_be_decoded_is_named(tmp_path: Path, cache: str) -> None:
    good = tfrecord.image_example(tf.io.encode_png(tf.zeros([8, 8, 3], tf.uint8)).numpy(), 'png', 8, 8, 1)
    bad = tfrecord.image_example(b'no image', 'png', 8, 8, 1)
    path = tmp_path / 'train-00000-of-00001'
    tfrecord.write_records(str(path), [*[good] * 50, bad, *[good] * 3])
    dataset = get_dataset('imagenet', str(tmp_path), 'train')
    folder = tmp_path / 'cache'
    message = re.escape(f'{path}, record 50: its image cannot be decoded: Unknown image file format')
    with pytest.raises(InputError, match=message):
        with_cache(dataset, str(folder) if cache == 'folder' else cache, 3, passes=2)
    assert not folder.exists() or not list(folder.iterdir())


def test_a_file_larger_than_memory_is_mapped(tmp_path: Path) -> None:
    path = tmp_path / 'sparse.pixels'
    size = 2 * (psutil.virtual_memory().total + psutil.swap_memory().total)
    with open(path, 'w+b') as file:
        file.truncate(size)
        file.seek(size - 3)
        file.write(b'end')
        file.flush()
        pixels = decoded._map(file)
        assert tf.slice(pixels, [size - 3], [3]).numpy().tobytes() == b'end'


def test_what_a_killed_process_left_is_removed(digits_dir: Path, tmp_path: Path) -> None:
    stale = tmp_path / '.digits-1-0123456789abcdef.99999999.part'
    running = tmp_path / f'.digits-1-0123456789abcdef.{os.getpid()}.part'
    for path in (stale, running):
        path.write_text('half')
    with_cache(get_dataset('digits', str(digits_dir), 'train[:20]'), str(tmp_path), 1, passes=1)
    assert not stale.exists()
    assert running.exists()


def test_memory_that_cannot_be_had(digits_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))

    monkeypatch.setattr(decoded, '_decode_all', fail)
    with pytest.raises(InputError, match=r'--cache=memory: .*File too large'):
        with_cache(get_dataset('digits', str(digits_dir), 'test'), 'memory', 1, passes=1)


def test_a_folder_that_cannot_be_written_to(digits_dir: Path, tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('')
    dataset = get_dataset('digits', str(digits_dir), 'test')
    with pytest.raises(InputError, match=r'--cache=.*file.*; name a writable folder'):
        with_cache(dataset, str(tmp_path / 'file'), 1, passes=1)
