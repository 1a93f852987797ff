"""Damaged files of data sets: whatever reads one refuses it as input, or takes it; in no time, and with no memory.

A module under `datasets` that parses anything has its row here, or the last test fails.
"""

import ast
import contextlib
import dataclasses
import gzip
import io
import itertools
import json
import os
import pickle
import random
import resource
import struct
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from datasets import decoded, manifest, record_faults, records, tfds, tfrecord
from datasets.array_tables import save_arrays
from datasets.conversion import archives, bounding_boxes, cifar10, imagenet_labels, journal, mnist
from datasets.conversion import tfds as tfds_source
from datasets.conversion import unpack as unpacking
from datasets.conversion.pickled_arrays import load_images
from datasets.examples import RecordExamples
from support.errors import InputError
from tests.sources import tar_bytes

MAX_SECONDS, MAX_BYTES = 60.0, 2**28  # of all mutations of a parser, on a machine that does other things too
DATASETS = Path(tfrecord.__file__).parent

Parse = Callable[[Path], object]


@dataclasses.dataclass(frozen=True)
class Parser:
    """A parser of one kind of file.

    Attributes:
        module: Of the parser, under `datasets`.
        file: The name that it looks for.
        content: Of a file that is whole.
        parse: From the path of the file.
        mutations: How many; less of what takes its time.
    """

    module: str
    file: str
    content: bytes
    parse: Parse
    mutations: int = 400


# ------------------------------------------------------------------------ whole files

SHARD = {
    'file': 'train-00000-of-00001',
    'split': 'train',
    'source': 'abc',
    'size': 3,
    'sha256': 'ff',
    'labels': {'0': 2, '1': 1},
    'skipped': [['train/a.jpg', 'no image']],
    'changes': {'PNG to JPEG': 1},
}
MANIFEST = {
    'name': 'image_folder',
    'class_names': ['a', 'b'],
    'channels': 3,
    'splits': {
        'train': {
            'images': 3,
            'bytes': 3,
            'images_per_class': [2, 1],
            'shards': [{'file': 'train-00000-of-00001', 'images': 3, 'bytes': 3, 'sha256': 'ff'}],
        }
    },
    'changed': {'PNG to JPEG': 1},
    'skipped': [{'split': 'train', 'image': 'a.jpg', 'reason': 'no image'}],
}
FEATURES = {
    'pythonClassName': 'tensorflow_datasets.core.features.features_dict.FeaturesDict',
    'featuresDict': {
        'features': {
            'label': {
                'pythonClassName': 'tensorflow_datasets.core.features.class_label_feature.ClassLabel',
                'classLabel': {'numClasses': '2'},
            },
            'id': {'jsonFeature': {'json': '{"shape": []}'}},
        }
    },
}
ANNOTATION = b"""<annotation><size><width>10</width><height>8</height></size><object><name>n01440764</name>
<bndbox><xmin>1</xmin><ymin>2</ymin><xmax>5</xmax><ymax>6</ymax></bndbox></object></annotation>"""


def _example() -> bytes:
    png = tf.io.encode_png(tf.zeros([3, 4, 3], tf.uint8)).numpy()
    return tfrecord.imagenet_example(
        png, 3, 4, 1, synset='n01440764', text='tench', filename='a.jpg', boxes=[(0.1, 0.2, 0.3, 0.4)]
    ).SerializeToString()


def _framed(records: Iterable[bytes]) -> bytes:
    """A TFRecord file; readers here compare no checksum of lengths, which are zero."""
    return b''.join(struct.pack('<QI', len(record), 0) + record + bytes(4) for record in records)


def _written(record: bytes, folder: Path) -> str:
    """The path of a TFRecord file, checksums and all."""
    path = str(folder / 'one.tfrecord')
    with tf.io.TFRecordWriter(path) as writer:
        writer.write(record)
    return path


def _table(**arrays: np.ndarray) -> bytes:
    file = io.BytesIO()
    save_arrays(file, arrays)
    return file.getvalue()


IMAGE_TABLE = {
    'checksum': np.array(0),
    'starts': np.array([0, 12]),
    'shapes': np.array([[2, 2, 3]] * 2),
    'labels': np.array([0, 1]),
    'box_ranges': np.zeros([2, 2], np.int64),
    'boxes': np.zeros([0, 4], np.float32),
}
CIFAR_BATCH = {b'data': np.zeros([2, 3072], np.uint8), b'labels': [0, 9], b'filenames': [b'a.png', b'b.png']}


# ------------------------------------------------------------------------ what reads them


def _parse_journal(path: Path) -> None:
    with journal.Journal(str(path.parent)) as opened:
        opened.begin({'dataset_name': 'mnist'}, ['train*'])


def _parse_record(path: Path) -> None:
    """A record, and all that is said of one that cannot be used."""
    examples = RecordExamples(tfrecord.index_files([_written(path.read_bytes(), path.parent)]))
    with contextlib.suppress(InputError):
        examples.check(0)
    examples.not_an_image(0)
    record_faults.problem_of(path.read_bytes(), tfrecord.SLIM_SCHEMA)


def _parse_tfds_records(path: Path) -> None:
    splits: dict[str, tuple[str, ...]] = {'train': (str(path),)}
    builder = tfds.TfdsBuilder('x/1.0.0', splits, 'image/encoded', 'image/class/label', ('a', 'b'), 3)
    list(tfds_source._list_split(builder, 'train'))


def _parse_mnist(path: Path) -> None:
    for prefix, (name, content) in itertools.product(('train', 't10k'), MNIST.items()):
        other = path.parent / f'{prefix}-{name}'
        if other != path:
            other.write_bytes(content)
    for image in mnist.open_source(str(path.parent), str(path.parent / 'work')).splits['train']:
        mnist.read_png(image)


def _parse_cifar10(path: Path) -> None:
    for name in ('data_batch_2', 'data_batch_3', 'data_batch_4', 'data_batch_5', 'test_batch'):
        (path.parent / f'{name}.bin').write_bytes(bytes(3073))
    for image in cifar10.open_source(str(path.parent), str(path.parent / 'work')).splits['train']:
        cifar10.read_png(image)


def _parse_boxes(path: Path) -> None:
    bounding_boxes.open_boxes(str(path))('a', 'n01440764')


def _unpack(path: Path) -> None:
    for file in unpacking._find_files(str(path.parent)):
        unpacking._make(file, str(path.parent / 'new'))


def _open_manifest(path: Path) -> None:
    records.open_converted('image_folder', str(path.parent))
    list(manifest.summary(manifest.load(str(path.parent))))


MNIST = {
    'images-idx3-ubyte': struct.pack('>HBBIII', 0, 8, 3, 2, 28, 28) + bytes(2 * 784),
    'labels-idx1-ubyte': struct.pack('>HBBI', 0, 8, 1, 2) + b'\x00\x09',
}
WNIDS = imagenet_labels.load_wnids()[:3]
PICKLE = 'conversion/pickled_arrays'

PARSERS_BY_NAME = {
    'journal': Parser(
        'conversion/journal',
        journal.JOURNAL,
        ''.join(f'{json.dumps(row)}\n' for row in ({'dataset_name': 'mnist'}, SHARD)).encode(),
        _parse_journal,
    ),
    'dataset.json': Parser('manifest', 'dataset.json', json.dumps(MANIFEST).encode(), _open_manifest),
    'labels.txt': Parser(
        'records',
        'labels.txt',
        b'0:a\n1:b\n2:\xc3\xa4\n',
        lambda path: records.load_label_names(str(path.parent)),
    ),
    'framing': Parser(
        'tfrecord', 'a.tfrecord', _framed([b'abc', b'', b'x' * 40]), lambda path: tfrecord.index_files([str(path)])
    ),
    'record': Parser('record_faults', 'record', _example(), _parse_record, 150),
    'records of TFDS': Parser('conversion/tfds', 'a.tfrecord', _framed([_example()] * 2), _parse_tfds_records),
    'cache': Parser(
        'array_tables',
        'a.npz',
        _table(**IMAGE_TABLE),
        lambda path: decoded._load_table(str(path), str(path.with_suffix('.pixels')), 2),
    ),
    'index': Parser(
        'array_tables',
        'a.npz',
        _table(key=np.array('a 1 1'), file_numbers=np.zeros(3, np.int32), offsets=np.arange(3)),
        lambda path: tfrecord._load_index(str(path), 'a 1 1'),
    ),
    'pickle of Python 2': Parser(
        PICKLE,
        'data_batch_1',
        pickle.dumps(CIFAR_BATCH, protocol=2),
        lambda path: load_images(path.read_bytes(), 3072, str(path)),
    ),
    'pickle of Python 3': Parser(
        PICKLE,
        'data_batch_1',
        pickle.dumps({'data': CIFAR_BATCH[b'data'], 'labels': [0, 9]}),
        lambda path: load_images(path.read_bytes(), 3072, str(path)),
    ),
    'CIFAR binary': Parser('conversion/cifar10', 'data_batch_1.bin', bytes(2 * 3073), _parse_cifar10),
    'MNIST images': Parser('conversion/mnist', 'train-images-idx3-ubyte', MNIST['images-idx3-ubyte'], _parse_mnist),
    'MNIST labels': Parser('conversion/mnist', 'train-labels-idx1-ubyte', MNIST['labels-idx1-ubyte'], _parse_mnist),
    'features.json': Parser(
        'tfds', 'features.json', json.dumps(FEATURES).encode(), lambda path: tfds.check_features(str(path))
    ),
    'tar': Parser(
        'conversion/archives',
        'a.tar',
        tar_bytes({'a/1.jpg': b'abc', f'{"b" * 120}/2.jpg': b'x' * 700}),
        lambda path: archives.list_tar(str(path)),
    ),
    'gzip': Parser(
        'conversion/archives',
        'a.gz',
        gzip.compress(b'abc' * 500, mtime=0),
        lambda path: archives.decompress(str(path), str(path.parent / 'work')),
    ),
    'compressed records': Parser(
        'conversion/unpack', 'a.gz', gzip.compress(_framed([b'abc', b'x' * 40]), mtime=0), _unpack, 100
    ),
    'annotation': Parser(
        'conversion/bounding_boxes',
        'a.xml',
        ANNOTATION,
        lambda path: bounding_boxes.read_annotation(str(path), 'n01440764'),
    ),
    'CSV of boxes': Parser('conversion/bounding_boxes', 'a.csv', b'a.JPEG,0.1,0.2,0.3,0.4\n' * 3, _parse_boxes),
    'class names': Parser(
        'conversion/imagenet_labels',
        'names.txt',
        ''.join(f'{wnid} a name\n' for wnid in WNIDS).encode(),
        lambda path: imagenet_labels.load_class_names(str(path), WNIDS),
    ),
}

# What makes a module one that parses.
PRIMITIVES = {
    'json.load', 'json.loads', 'struct.unpack', 'struct.unpack_from', 'pickletools.genops', 'pickle.load', 'read_file',
    'load_arrays', 'np.load', 'ET.parse', 'ET.fromstring', 'csv.reader', 'tarfile.open', 'gzip.open', 'gzip.GzipFile',
    'zlib.decompressobj', 'tf.train.Example.FromString', 'tf.train.Feature.FromString',
}  # fmt: skip
# That use a parser of another module and are tested with it, or read what is no file of a data set.
USERS = {
    'decoded': 'cache',
    'text_files': 'files of a run, see test_reliability.py',
    'conversion/verify': 'dataset.json',
    'service': 'the answer of a server',
    'conversion/encode': 'images, see test_conversion_encoding.py',
    'orientation': 'images, see test_orientation.py',
}


# ------------------------------------------------------------------------ damage

TOKENS = (
    b'\xff' * 4, b'\xff' * 8, b'\0' * 8, b'[' * 5000, b'{"a":' * 3000, b'9' * 30, b'9' * 5000, b'-1', b'null', b'true',
    b'1e999', b'"\\ud800"', b'..', b'/', b'\n', b'\r', b'\x80', b'\xef\xbb\xbf', b'&a;', b'<!DOCTYPE x>', b'\x7f',
    b'\x8e\xff\xff\xff\xff\xff\xff\xff\x7f', b'r\xff\xff\xff\x7f', b'\x96\xff\xff\xff\xff\xff\x7f\0\0', b'NaN', b'""',
)  # fmt: skip


def damaged(content: bytes, draw: random.Random) -> bytes:
    """Returns content with one to three kinds of damage."""
    for _ in range(draw.randint(1, 3)):
        at, size = draw.randrange(len(content) + 1), draw.randint(1, 8)
        kind = draw.randrange(7)
        if kind == 0:
            content = content[:at]
        elif kind == 1:
            content = content[:at] + content[at + size :]
        elif kind == 2:
            content = content[:at] + draw.randbytes(size) + content[at + size :]
        elif kind == 3:
            content = content[:at] + content[at : at + 50] * 2 + content[at + 50 :]
        elif kind == 4:
            flipped = bytes([byte ^ 1 << draw.randrange(8) for byte in content[at : at + 1]])
            content = content[:at] + flipped + content[at + 1 :]
        else:
            token = draw.choice(TOKENS)
            content = content[:at] + token + content[at + (len(token) if kind == 5 else 0) :]
    return content


OTHER_VALUES: tuple[Any, ...] = (None, True, -1, 10**400, 1.5, 'x', [], {}, [[[]]], {'a': {}}, '../x')


def _values_of_other_types(content: bytes) -> Iterable[bytes]:
    """The lines of a JSON file with each value replaced, one at a time, by those of other types."""
    try:
        lines = [json.loads(line) for line in content.splitlines()]
    except ValueError:
        return
    for number, line in enumerate(lines):
        for place in _places(line, ()):
            for value in OTHER_VALUES:
                changed = [*lines[:number], _replaced(line, place, value), *lines[number + 1 :]]
                yield ''.join(f'{json.dumps(each)}\n' for each in changed).encode()


def _places(value: object, place: tuple) -> Iterable[tuple]:
    yield place
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from _places(item, (*place, key))


def _replaced(value: object, place: tuple, new: object) -> object:
    if not place:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)  # type: ignore[call-overload]
    copy[place[0]] = _replaced(copy[place[0]], place[1:], new)
    return copy


def _memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize('name', PARSERS_BY_NAME)
def test_damage_is_refused_or_taken(name: str, tmp_path: Path) -> None:
    parser, draw = PARSERS_BY_NAME[name], random.Random(name)
    path = tmp_path / parser.file
    path.write_bytes(parser.content)
    parser.parse(path)  # which is whole
    files = [*(damaged(parser.content, draw) for _ in range(parser.mutations)), *_values_of_other_types(parser.content)]
    before, start = _memory(), time.monotonic()
    for number, content in enumerate(files):
        _clean(tmp_path)
        path.write_bytes(content)
        try:
            with contextlib.suppress(InputError):
                parser.parse(path)
        except Exception as error:
            raise AssertionError(f'{name}, damage {number}, {content[:200]!r}') from error
    assert time.monotonic() - start < MAX_SECONDS
    assert _memory() - before < MAX_BYTES


def _clean(folder: Path) -> None:
    for path in sorted(folder.rglob('*'), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()


@pytest.mark.parametrize('name', PARSERS_BY_NAME)
def test_pipes_and_devices_are_not_waited_for(name: str, tmp_path: Path) -> None:
    parser = PARSERS_BY_NAME[name]
    if name.startswith('pickle') or name in ('record', 'cache', 'index'):
        pytest.skip('what is parsed is no file, or one of ours')
    for make in (os.mkfifo, lambda path: os.symlink('/dev/zero', path)):
        path = tmp_path / parser.file
        make(path)
        with contextlib.suppress(InputError):
            parser.parse(path)
        path.unlink()


def test_nine_bytes_of_a_pickle_take_no_memory() -> None:
    before = _memory()
    for pickled in (b'\x80\x02Nr\xff\xff\xff\x7f.', b'\x80\x02Nr\xff\xff\xff\xff.', b'N' + b'p' + b'9' * 11 + b'\n.'):
        with pytest.raises(InputError, match=r'remembers something as number|not a batch'):
            load_images(pickled, 3072, 'data_batch_1')
    assert _memory() - before < 2**26


def test_every_parser_is_here() -> None:
    parsing = set()
    for path in DATASETS.rglob('*.py'):
        calls = {ast.unparse(node.func) for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)}
        if calls & PRIMITIVES:
            parsing.add(str(path.relative_to(DATASETS).with_suffix('')))
    assert parsing - USERS.keys() <= {parser.module for parser in PARSERS_BY_NAME.values()}
