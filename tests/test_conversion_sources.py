"""Image folders, CIFAR-10, MNIST and flowers as sources: their layouts, and what is refused."""

import errno
import gzip
import hashlib
import io
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from datasets import class_folders as image_folder
from datasets import files
from datasets.conversion import cifar10, flowers, imagenet, mnist
from datasets.dataset_factory import get_dataset
from datasets.source import Source
from support.errors import InputError
from tests.sources import (
    IMAGE,
    SharedPath,
    class_folders,
    described,
    idx,
    mnist_contents,
    names_and_labels,
    tar_bytes,
    write_files,
)

FOLDER_LAYOUTS = {
    'one split': (
        class_folders('b/1.JPG', 'b/z/2.png', 'a/1.webp', 'a/.hidden.jpg') | {'a/notes.txt': b''},
        {'train': [('train/a/1.webp', 0), ('train/b/1.JPG', 1), ('train/b/z/2.png', 1)]},
    ),
    'splits': (
        class_folders('train/b/1.gif', 'train/a/1.bmp', 'val/b/1.jpeg', 'test/a/1.jpg', 'other/x.jpg'),
        {
            'train': [('train/a/1.bmp', 0), ('train/b/1.gif', 1)],
            'validation': [('validation/b/1.jpeg', 1)],
            'test': [('test/a/1.jpg', 0)],
        },
    ),
    'labels.txt': (
        class_folders('train/b/1.jpg', 'validation/a/1.jpg') | {'labels.txt': b'0:background\n2:a\n1:b\n'},
        {'train': [('train/b/1.jpg', 1)], 'validation': [('validation/a/1.jpg', 2)]},
    ),
    'a class named train': (
        class_folders('car/1.jpg', 'train/1.jpg'),
        {'train': [('train/car/1.jpg', 0), ('train/train/1.jpg', 1)]},
    ),
}


@pytest.mark.parametrize('layout', FOLDER_LAYOUTS)
def test_image_folder_layouts(layout: str, tmp_path: Path) -> None:
    contents, expected = FOLDER_LAYOUTS[layout]
    assert names_and_labels(image_folder.open_source(str(write_files(tmp_path, contents)))) == expected


def test_files_that_are_no_images_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_files(tmp_path, class_folders('a/1.jpg', 'b/1.jpg', 'loose.jpg', 'a/x.txt', 'a/deep/y.xml', 'a/.hidden'))
    with caplog.at_level('INFO', 'absl'):
        image_folder.open_source(str(tmp_path))
    assert [record.message for record in caplog.records] == [f'{tmp_path}: 3 files left out: 1 .jpg, 1 .txt, 1 .xml']


def test_links_to_files_and_folders_are_followed(tmp_path: Path) -> None:
    write_files(tmp_path, class_folders('elsewhere/x.jpg', 'photos/a/1.jpg'))
    (tmp_path / 'photos/a/2.jpg').symlink_to(tmp_path / 'elsewhere/x.jpg')
    (tmp_path / 'photos/b').symlink_to(tmp_path / 'elsewhere')
    source = image_folder.open_source(str(tmp_path / 'photos'))
    assert names_and_labels(source) == {'train': [('train/a/1.jpg', 0), ('train/a/2.jpg', 0), ('train/b/x.jpg', 1)]}
    assert source.read(source.splits['train'][1]) == IMAGE


BAD_FOLDERS = {
    'empty': ({'x': b''}, 'must hold at least two class folders, but holds none'),
    'one class': (class_folders('photos/a/1.jpg'), 'must hold at least two class folders, but holds only photos'),
    'empty class': (class_folders('a/1.jpg', 'b/.keep'), 'b: the class folder holds no images .*.webp'),
    'no image in a class': (class_folders('a/1.jpg', 'b/1.tiff'), 'b: the class folder holds no images'),
    'class that train lacks': (
        class_folders('train/a/1.jpg', 'train/b/1.jpg', 'test/c/1.jpg'),
        "test/c: 'c' is not one of the 2 classes of train",
    ),
    'class that labels.txt lacks': (
        class_folders('a/1.jpg', 'b/1.jpg') | {'labels.txt': b'0:a\n'},
        "b: 'b' is not one of the 1 classes of train or labels.txt",
    ),
    'bad labels.txt': (class_folders('a/1.jpg') | {'labels.txt': b'a\n'}, 'labels.txt, line 1'),
    'no train': (class_folders('val/a/1.jpg'), 'has neither a train folder nor a labels.txt'),
    'two validation splits': (class_folders('val/a/1.jpg', 'validation/a/1.jpg'), 'both val and validation'),
    'splits by other names': (
        class_folders('Train/a/1.jpg', 'Train/b/1.jpg', 'Test/a/1.jpg'),
        'Test, Train: no classes; name splits train, validation, test',
    ),
    'white space': (class_folders('a /1.jpg', 'b/1.jpg'), "the name 'a ' begins or ends with white space"),
    'control characters': (class_folders('a/1\n.jpg', 'b/1.jpg'), r"a: the name '1\\n.jpg' has control characters"),
    'class with control characters': (class_folders('a\n/1.jpg', 'b/1.jpg'), r"the name 'a\\n' has control characters"),
}


@pytest.mark.parametrize('case', BAD_FOLDERS)
def test_bad_image_folders_are_refused(case: str, tmp_path: Path) -> None:
    contents, message = BAD_FOLDERS[case]
    with pytest.raises(InputError, match=message):
        image_folder.open_source(str(write_files(tmp_path, contents)))


BAD_LINKS = {
    'dangling': ('a/2.jpg', 'gone.jpg', r'a/2.jpg: a symbolic link to gone.jpg, which does not exist'),
    'dangling class': ('c', 'gone', r'c: a symbolic link to gone, which does not exist'),
    'circle': ('a/deep', '..', 'a/deep/.*a symbolic link to one of its parent folders'),
    'itself': ('a/2.jpg', '2.jpg', 'a/2.jpg'),
}


@pytest.mark.parametrize('case', BAD_LINKS)
def test_bad_links_are_named(case: str, tmp_path: Path) -> None:
    link, target, message = BAD_LINKS[case]
    write_files(tmp_path, class_folders('a/1.jpg', 'b/1.jpg'))
    (tmp_path / link).symlink_to(target)
    with pytest.raises(InputError, match=message):
        image_folder.open_source(str(tmp_path))


def test_links_to_devices_are_left_out(tmp_path: Path) -> None:
    write_files(tmp_path, class_folders('a/1.jpg', 'b/1.jpg'))
    for link in ('c', 'a/2.jpg'):
        (tmp_path / link).symlink_to('/dev/null')
    assert names_and_labels(image_folder.open_source(str(tmp_path))) == {
        'train': [('train/a/1.jpg', 0), ('train/b/1.jpg', 1)]
    }


def test_what_may_not_be_looked_at_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a folder that may be listed and not entered; permissions do not stop an administrator."""

    def refuse(path: str) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), path)

    write_files(tmp_path, class_folders('a/1.jpg', 'b/1.jpg'))
    monkeypatch.setattr(files.os.path, 'isdir', lambda _: False)  # what it says of such a folder
    monkeypatch.setattr(files.os, 'stat', refuse)
    with pytest.raises(InputError, match=f'^{tmp_path}/a: cannot be read: Permission denied$'):
        files.list_subfolders(str(tmp_path))
    monkeypatch.setattr(files.os, 'scandir', refuse)
    with pytest.raises(InputError, match=f'--source_dir={tmp_path}: not a readable folder: Permission denied'):
        image_folder.open_source(str(tmp_path))


NOT_UTF8 = {
    'file': (b'b/2\xff.jpg', r"b: the name '2\\udcff.jpg' has control characters or is not UTF-8; rename it"),
    'class': (b'b\xff/2.jpg', r"the name 'b\\udcff' has control characters or is not UTF-8; rename it"),
    'folder': (b'b/c\xff/2.jpg', r"b: the name 'c\\udcff' has control characters or is not UTF-8; rename it"),
}


@pytest.mark.parametrize('case', NOT_UTF8)
@pytest.mark.parametrize(
    'open_folder', [image_folder.open_source, lambda path: get_dataset('image_folder', path, 'train')]
)
def test_names_that_are_not_utf8_are_refused(case: str, open_folder: Callable[[str], object], tmp_path: Path) -> None:
    name, message = NOT_UTF8[case]
    write_files(tmp_path, class_folders('a/1.jpg', 'b/1.jpg', os.fsdecode(name)))
    with pytest.raises(InputError, match=message):
        open_folder(str(tmp_path))


def test_missing_and_unreadable_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match='gone: no such folder'):
        image_folder.open_source(str(tmp_path / 'gone'))
    with pytest.raises(InputError, match='gone: cannot be read: No such file'):
        imagenet.open_source(str(tmp_path / 'gone'))
    with pytest.raises(InputError, match='gone: cannot be read: No such file'):
        files.list_folder(str(tmp_path / 'gone'))


def read_examples(path: Path, count: int) -> tuple[np.ndarray, list[int]]:
    """Returns pixels, uint8 [count, height, width, channels], and labels of the first records of a data set."""
    images, labels = [], []
    for record in tf.data.TFRecordDataset(str(path)).take(count):
        features = tf.train.Example.FromString(record.numpy()).features.feature
        images.append(tf.io.decode_png(features['image/encoded'].bytes_list.value[0]).numpy())
        labels.append(features['image/class/label'].int64_list.value[0])
    return np.stack(images), labels


def label_names(path: Path) -> tuple[str, ...]:
    return tuple(line.partition(':')[2] for line in path.read_text().splitlines())


def decode(source: Source, split: str) -> np.ndarray:
    return np.stack([np.asarray(Image.open(io.BytesIO(source.read(image)))) for image in source.splits[split]])


@pytest.fixture(scope='module')
def cifar_images(shared_path: SharedPath) -> tuple[np.ndarray, list[int]]:
    """Two images for each of the six batches."""
    return read_examples(shared_path('data/cifar10/cifar10_train.tfrecord'), 12)


def cifar_batches(images: np.ndarray, labels: list[int]) -> dict[str, tuple[np.ndarray, list[int]]]:
    names = [*(f'data_batch_{number}' for number in range(1, 6)), 'test_batch']
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    return {name: (planes[2 * i : 2 * i + 2], labels[2 * i : 2 * i + 2]) for i, name in enumerate(names)}


def cifar_contents(version: str, images: np.ndarray, labels: list[int]) -> dict[str, bytes]:
    contents = {}
    for name, (planes, of_batch) in cifar_batches(images, labels).items():
        if version == 'binary':
            rows = [bytes([label]) + row.tobytes() for row, label in zip(planes, of_batch, strict=True)]
            contents[f'cifar-10-batches-bin/{name}.bin'] = b''.join(rows)
        elif version == 'python':
            contents[f'cifar-10-batches-py/{name}'] = pickled_by_python_2(planes, of_batch)
        else:
            contents[f'cifar-10-batches-py/{name}'] = pickle.dumps({'data': planes, 'labels': of_batch}, protocol=2)
    return contents


def pickled_by_python_2(planes: np.ndarray, labels: list[int]) -> bytes:
    """Returns `{'data': planes, 'labels': labels}` pickled as by Python 2 and its NumPy, like the published files."""
    raw, count = planes.tobytes(), len(labels)
    data = b'cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR'
    data += b'(K\x01K' + bytes([count]) + b'M' + struct.pack('<H', planes.shape[1]) + b'\x86'
    data += b'cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb'
    data += b'\x89T' + struct.pack('<i', len(raw)) + raw + b'tb'
    items = b''.join(b'K' + bytes([label]) for label in labels)
    return b'\x80\x02}(U\x04data' + data + b'U\x06labels](' + items + b'eu.'


@pytest.mark.parametrize('packed', [True, False], ids=['archive', 'unpacked'])
@pytest.mark.parametrize('version', ['binary', 'python', 'python 3'])
def test_cifar10_versions_give_the_same_images(
    version: str,
    packed: bool,
    cifar_images: tuple[np.ndarray, list[int]],
    shared_path: SharedPath,
    tmp_path: Path,
) -> None:
    images, labels = cifar_images
    contents = cifar_contents(version, images, labels)
    if packed:
        (tmp_path / f'cifar-10-{version.removesuffix(" 3")}.tar.gz').write_bytes(gzip.compress(tar_bytes(contents)))
    else:
        write_files(tmp_path, contents)
    source = cifar10.open_source(str(tmp_path), str(tmp_path / 'work'))
    np.testing.assert_array_equal(decode(source, 'train'), images[:10])
    np.testing.assert_array_equal(decode(source, 'test'), images[10:])
    assert [image.label for split in ('train', 'test') for image in source.splits[split]] == labels
    assert source.splits['train'][3].name == 'train/data_batch_2/00001'
    assert [image.name for image in source.splits['train']] == sorted(image.name for image in source.splits['train'])
    assert source.class_names == label_names(shared_path('data/cifar10/labels.txt'))


def test_cifar10_folder_itself_can_be_named(cifar_images: tuple[np.ndarray, list[int]], tmp_path: Path) -> None:
    write_files(tmp_path, cifar_contents('binary', *cifar_images))
    source = cifar10.open_source(str(tmp_path / 'cifar-10-batches-bin'), str(tmp_path / 'work'))
    assert len(source.splits['train']) == 10
    assert not (tmp_path / 'work').exists()


class Malicious:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ('pwned',)


ONE = b'\x03' + bytes(3072)
WRONG_TYPE = {'data': np.zeros([1, 3072], np.int16), 'labels': [1]}
WRONG_COUNT = {'data': np.zeros([1, 3072], np.uint8), 'labels': [1, 2]}
WRONG_LABEL = {'data': np.zeros([1, 3072], np.uint8), 'labels': [300]}
BAD_CIFAR = {
    'nothing': ({'x': b''}, 'holds neither cifar-10-binary.tar.gz nor cifar-10-python.tar.gz'),
    'missing batch': ({'data_batch_1.bin': ONE}, 'CIFAR-10 lacks data_batch_2.bin'),
    'truncated batch': (
        {'data_batch_1.bin': ONE[:-1]},
        'data_batch_1.bin: truncated: 3072 bytes are no images',
    ),
    'empty batch': ({'data_batch_1.bin': b''}, 'data_batch_1.bin: truncated'),
    'label': ({'data_batch_1.bin': ONE + b'\x0a' + bytes(3072)}, 'image 1 has the label 10; there are 0 to 9'),
    'pickle that calls': ({'data_batch_1': pickle.dumps(Malicious())}, 'it calls posix.mkdir, which an array does not'),
    'no pickle': ({'data_batch_1': b'hello'}, 'data_batch_1: not a batch of CIFAR-10, or damaged'),
    'truncated pickle': ({'data_batch_1': pickled_by_python_2(np.zeros([1, 3072], np.uint8), [1])[:999]}, 'damaged'),
    'other type': ({'data_batch_1': pickle.dumps(WRONG_TYPE, 2)}, r'its array is not uint8 \[1, 3072\]'),
    'other count': ({'data_batch_1': pickle.dumps(WRONG_COUNT, 2)}, r'its array is not uint8 \[2, 3072\]'),
    'other label': ({'data_batch_1': pickle.dumps(WRONG_LABEL, 2)}, 'labels that are no small integers'),
    'no batch': ({'data_batch_1': pickle.dumps([1, 2])}, 'data_batch_1: not a batch of CIFAR-10, or damaged'),
    'unsafe archive': (
        {'cifar-10-binary.tar.gz': gzip.compress(tar_bytes({'../data_batch_1.bin': ONE}))},
        "cifar-10-binary.tar: member '../data_batch_1.bin' would leave",
    ),
}


@pytest.mark.parametrize('case', BAD_CIFAR)
def test_bad_cifar10_sources_are_refused(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents, message = BAD_CIFAR[case]
    others = {f'data_batch_{number}': b'' for number in range(2, 6)} | {'test_batch': b''}
    if 'data_batch_1' in contents:
        contents = contents | others
    elif case in ('truncated batch', 'empty batch', 'label'):
        contents = contents | {f'{name}.bin': b'' for name in others}
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        cifar10.open_source(str(write_files(tmp_path, contents)), str(tmp_path / 'work'))
    assert not (tmp_path / 'pwned').exists()


@pytest.mark.parametrize('compressed', [True, False])
def test_mnist(compressed: bool, shared_path: SharedPath, tmp_path: Path) -> None:
    images, labels = read_examples(shared_path('data/mnist/mnist_train.tfrecord'), 12)
    contents = mnist_contents(images[..., 0], labels, num_train=8)
    if compressed:
        contents = {f'{name}.gz': gzip.compress(content) for name, content in contents.items()}
    source = mnist.open_source(str(write_files(tmp_path, contents)), str(tmp_path / 'work'))
    np.testing.assert_array_equal(decode(source, 'train'), images[:8, ..., 0])
    np.testing.assert_array_equal(decode(source, 'test'), images[8:, ..., 0])
    assert [image.label for split in ('train', 'test') for image in source.splits[split]] == labels
    assert source.splits['test'][0].name == 'test/00000'
    assert source.class_names == label_names(shared_path('data/mnist/labels.txt'))


GOOD_MNIST = mnist_contents(np.zeros([10, 28, 28], np.uint8), [1] * 10, num_train=8)
BAD_MNIST = {
    'missing': ('train-labels-idx1-ubyte', None, 'has neither train-labels-idx1-ubyte nor train-labels-idx1-ubyte.gz'),
    'truncated': ('train-images-idx3-ubyte', idx(np.zeros([8, 28, 28], np.uint8))[:-1], '6287 bytes instead of 6288'),
    'header': ('train-images-idx3-ubyte', b'\0\0\x08\x03', 'not an idx file of bytes with 3 dimensions'),
    'not idx': ('train-labels-idx1-ubyte', b'hello world', 'not an idx file of bytes with 1 dimensions'),
    'size': ('train-images-idx3-ubyte', idx(np.zeros([8, 32, 32], np.uint8)), '8 images of 32x32 with 8 labels'),
    'count': ('train-labels-idx1-ubyte', idx(np.zeros([9], np.uint8)), '8 images of 28x28 with 9 labels'),
    'label': ('train-labels-idx1-ubyte', idx(np.full([8], 10, np.uint8)), 'label 0 is 10; there are 0 to 9'),
}


@pytest.mark.parametrize('case', BAD_MNIST)
def test_bad_mnist_files_are_refused(case: str, tmp_path: Path) -> None:
    name, content, message = BAD_MNIST[case]
    write_files(tmp_path, GOOD_MNIST)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        mnist.open_source(str(tmp_path), str(tmp_path / 'work'))


def flower_contents(count: int) -> dict[str, bytes]:
    contents = {
        f'flower_photos/{name}/{i}.jpg': IMAGE + bytes([i]) for name in flowers.CLASS_NAMES for i in range(count)
    }
    return contents | {'flower_photos/LICENSE.txt': b'CC-BY'}


def test_flowers_archive_and_folder_give_the_same_splits(tmp_path: Path) -> None:
    contents = flower_contents(20)
    packed, unpacked = tmp_path / 'packed', write_files(tmp_path / 'unpacked', dict(reversed(contents.items())))
    write_files(packed, {'flower_photos.tgz': gzip.compress(tar_bytes(contents))})
    source = flowers.open_source(str(packed), str(tmp_path / 'work'))
    for folder in (unpacked, unpacked / 'flower_photos'):
        assert described(flowers.open_source(str(folder), str(tmp_path / 'work'))) == described(source)
    assert {split: len(images) for split, images in source.splits.items()} == {'train': 90, 'validation': 10}
    for images in source.splits.values():
        for image in images:
            assert image.name.split('/')[1] == source.class_names[image.label]


def test_350_flowers_are_for_validation_whatever_their_order() -> None:
    names = [f'daisy/{i}.jpg' for i in range(3670)]
    chosen = flowers.choose_validation(names)
    assert len(chosen) == 350
    assert chosen == flowers.choose_validation(names[::-1])
    smallest = min(names, key=lambda name: hashlib.sha256(f'0/{name}'.encode()).hexdigest())
    assert smallest in chosen


BAD_FLOWERS = {
    'nothing': ({'x': b''}, 'holds neither flower_photos.tgz nor'),
    'class missing': (class_folders('daisy/1.jpg', 'roses/1.jpg'), 'no images of dandelion, sunflowers, tulips'),
    'class unknown': (class_folders('daisy/1.jpg', 'rose/1.jpg'), 'rose/1.jpg is of none of the classes daisy'),
    'truncated': ({'flower_photos.tgz': gzip.compress(tar_bytes({'a': b'x'}))[:-9]}, 'flower_photos.tgz: truncated'),
    'unsafe': (
        {'flower_photos.tgz': gzip.compress(tar_bytes({'flower_photos/../../daisy/1.jpg': IMAGE}))},
        'would leave the folder',
    ),
}


@pytest.mark.parametrize('case', BAD_FLOWERS)
def test_bad_flowers_are_refused(case: str, tmp_path: Path) -> None:
    contents, message = BAD_FLOWERS[case]
    with pytest.raises(InputError, match=message):
        flowers.open_source(str(write_files(tmp_path, contents)), str(tmp_path / 'work'))


def test_sources_on_the_disk_are_listed_without_tensorflow() -> None:
    """It takes seconds to import, which the process that hands out the work need not wait for."""
    modules = 'imagenet, cifar10, mnist, flowers'
    imports = f'import sys; from datasets import class_folders; from datasets.conversion import {modules}'
    code = f'{imports}; sys.exit("tensorflow" in sys.modules)'
    done = subprocess.run([sys.executable, '-c', code], cwd=Path(__file__).parents[1], check=False)
    assert done.returncode == 0
