"""What is said of files and records that cannot be read: by their bytes, keys and types."""

import base64
import errno
import gzip
import os
import zlib
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import tensorflow as tf

from datasets.record_faults import compression_of, not_an_image, problem_of
from datasets.regular_files import read_file
from datasets.tfrecord import SLIM_SCHEMA, Schema, index_files
from support.errors import InputError
from tests.sources import record

PNG = tf.io.encode_png(tf.zeros([3, 4, 3], tf.uint8)).numpy()
RECORD = b'\x03' + bytes(11) + b'abc' + bytes(4)


@pytest.mark.parametrize(
    ('start', 'name'),
    [
        (gzip.compress(RECORD, mtime=0), 'GZIP'),
        (zlib.compress(RECORD), 'ZLIB'),
        (zlib.compress(RECORD, 1), 'ZLIB'),
        (gzip.compress(RECORD, mtime=0)[:20], 'GZIP'),  # of a long one
        (b'\x1f\x8b\x08\x00' * 9, None),
        (RECORD, None),
        (b'x', None),
        (b'', None),
    ],
)
def test_compression(start: bytes, name: str | None) -> None:
    assert compression_of(start) == name


RAW = 'bytes of raw pixels ({}), and must be an image file; encode them, as with tf.io.encode_png'
CONTENTS: dict[str, tuple[bytes, dict[str, Any], str | None]] = {
    'base64': (
        base64.b64encode(PNG),
        {},
        'base64 text of a PNG; write the bytes themselves, as base64.b64decode gives',
    ),
    'lines of base64': (base64.encodebytes(PNG * 9), {}, 'base64 text of a PNG; '),
    'of the web': (base64.urlsafe_b64encode(b'\xff\xd8\xff\xfe' * 9), {}, 'base64 text of a JPEG; '),
    'data URI': (b'data:image/png;base64,' + base64.b64encode(PNG), {}, 'base64 text of a PNG; '),
    'TIFF': (b'II*\0' + bytes(20), {}, 'a TIFF, which is not read; write a JPEG or PNG'),
    'HEIC': (bytes(4) + b'ftypheic' + bytes(20), {}, 'a HEIC or AVIF, which is not read; write a JPEG or PNG'),
    'NumPy': (b'\x93NUMPY' + bytes(20), {}, 'a NumPy array (.npy), which is not read; write a JPEG or PNG'),
    'raw by format': (bytes(10), {'image/format': b'RAW'}, '10 ' + RAW.format('image/format is RAW')),
    'raw by sides': (bytes(30), {'height': 2, 'width': 5}, '30 ' + RAW.format('2 x 5 x 3')),
    'raw by size': (bytes(28 * 28 * 3), {}, '2,352 ' + RAW.format('as many as 28 x 28 x 3 would be')),
    'raw and gray': (bytes(27 * 27), {}, '729 ' + RAW.format('as many as 27 x 27 x 1 would be')),
    'text': (b'not an image', {}, None),
    'half a PNG': (PNG[:30], {}, None),
    'nothing': (b'', {}, None),
}


@pytest.mark.parametrize('case', CONTENTS)
def test_what_is_no_image(case: str) -> None:
    data, others, said = CONTENTS[case]
    found = not_an_image(data, others)
    assert found is None if said is None else (found or '').startswith(said)


ADVICE: dict[str, tuple[dict[str, Any], str]] = {
    'both': ({'picture': PNG, 'label': 1}, 'read them with --record_keys=image=picture,label=label'),
    'one': ({'picture': PNG, 'image__class__label': 1}, 'read them with --record_keys=image=picture'),
    'label by its name': (
        {'image__encoded': PNG, 'height': 2, 'class_id': 1},
        'read them with --record_keys=label=class_id',
    ),
    'two pictures': ({'a': PNG, 'b': PNG, 'label': 1}, 'name other keys by --record_keys=image=KEY,label=KEY'),
    'two labels': ({'image__encoded': PNG, 'a': 1, 'b': 1}, 'name other keys by --record_keys=image=KEY,label=KEY'),
}


@pytest.mark.parametrize('case', ADVICE)
def test_the_keys_are_proposed(case: str) -> None:
    features, advice = ADVICE[case]
    problem = problem_of(record(**features), SLIM_SCHEMA)
    assert problem is not None
    assert problem.endswith(advice)


def test_keys_of_others_cannot_be_named() -> None:
    schema = Schema('tfds:x', 'image', 'label', is_slims=False)
    assert problem_of(record(picture=PNG, label=1), schema) == (
        'has no key image; its keys are label (int64), picture (bytes)'
    )


def test_what_is_as_it_must_be() -> None:
    assert problem_of(record(image__encoded=PNG, image__class__label=1), SLIM_SCHEMA) is None


def test_folders_are_no_files(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        read_file(str(tmp_path))
    (tmp_path / 'large').write_bytes(bytes(11))
    with pytest.raises(InputError, match='has 11 bytes, and files of this kind have at most 10; is it the right one'):
        read_file(str(tmp_path / 'large'), max_bytes=10)
    assert read_file(str(tmp_path / 'large'), max_bytes=11) == bytes(11)


def test_files_that_cannot_be_opened_are_named(tmp_path: Path) -> None:
    """A link that leads nowhere, one that leads to itself, a file that is gone, one that may not be read."""
    for target in ('nowhere', 'itself'):
        (tmp_path / target.replace('nowhere', 'away')).symlink_to(target)
    with pytest.raises(InputError, match='away: a symbolic link to nowhere, which does not exist; remove or mend it'):
        index_files([str(tmp_path / 'away')])
    with pytest.raises(InputError, match='itself: a symbolic link that leads to itself; remove it'):
        index_files([str(tmp_path / 'itself')])
    with pytest.raises(InputError, match='gone: cannot be read: No such file or directory'):
        index_files([str(tmp_path / 'gone')])
    with pytest.raises(InputError, match='ram://gone: cannot be read: NotFoundError'):
        index_files(['ram://gone'])
    (tmp_path / 'closed').write_bytes(b'x')
    denied = PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    closed = mock.patch('datasets.tfrecord.mmap.mmap', side_effect=denied)  # for root may read whatever is closed
    with closed, pytest.raises(InputError, match='closed: cannot be read: Permission denied'):
        index_files([str(tmp_path / 'closed')])
