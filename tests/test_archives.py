"""Archives that are read in place or decompressed, and those that are refused."""

import collections
import gzip
import io
import os
import re
import shutil
import tarfile
from pathlib import Path

import pytest

from datasets.conversion import archives
from support.errors import InputError
from tests.sources import tar_bytes, write_files


def test_a_tar_lists_files_where_they_lie(tmp_path: Path) -> None:
    long = 'long/' * 60 + '1.jpg'
    contents = {'./a/1.jpg': b'first', long: b'second' * 200, 'empty': b'', '._a': b'hidden'}
    path = write_files(tmp_path, {'1.tar': tar_bytes(contents)}) / '1.tar'
    listed = {entry.name: entry for entry in archives.list_tar(str(path))}
    assert set(listed) == {'a/1.jpg', long, 'empty'}
    data = path.read_bytes()
    assert data[listed[long].offset :][: listed[long].size] == contents[long]
    assert listed['empty'].size == 0


def test_what_systems_put_into_archives_is_left_out(tmp_path: Path) -> None:
    names = (
        'a/1.jpg',
        '__MACOSX/a/._1.jpg',
        '__MACOSX/a/1.jpg',
        'a/@eaDir/1.jpg/T.jpg',
        'a/.thumbs/1.jpg',
        'a/lost.png',
    )
    path = write_files(tmp_path, {'1.tar': tar_bytes(dict.fromkeys(names, b'?'))}) / '1.tar'
    assert [entry.name for entry in archives.list_tar(str(path))] == ['a/1.jpg', 'a/lost.png']


def special(name: str, kind: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode='w') as tar:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, '/etc/passwd'
        tar.addfile(member)
    return buffer.getvalue()


HUGE = tarfile.TarInfo('long')  # a name of 1 GB, and so large a file that it would be read
HUGE.type, HUGE.size = tarfile.GNUTYPE_LONGNAME, 2**30
TWO = tar_bytes({'1.jpg': b'x' * 600, '2.jpg': b'y' * 600})  # headers at 0 and 1536, the end at 3072
BAD_TARS = {
    'parent': (tar_bytes({'a/../../x.jpg': b''}), r"member 'a/../../x.jpg' would leave the folder"),
    'absolute': (tar_bytes({'/x.jpg': b''}), r"member '/x.jpg' would leave the folder"),
    'control characters': (tar_bytes({'x\n.jpg': b''}), r"the name 'x\\n.jpg' has control characters"),
    'no UTF-8': (
        special('\udcff.jpg', tarfile.REGTYPE),
        r"the name '\\udcff.jpg' has control characters or is not UTF-8",
    ),
    'symbolic link': (special('x', tarfile.SYMTYPE), "member 'x' is a link, a device or a sparse file"),
    'hard link': (special('x', tarfile.LNKTYPE), "member 'x' is a link, a device or a sparse file"),
    'device': (special('x', tarfile.CHRTYPE), "member 'x' is a link, a device or a sparse file"),
    'pipe': (special('x', tarfile.FIFOTYPE), "member 'x' is a link, a device or a sparse file"),
    'empty file': (b'', 'truncated or corrupt after the beginning .*empty file'),
    'no tar': (b'hello' * 999, 'after the beginning .or not a tar, or a compressed one.: invalid header'),
    'compressed': (gzip.compress(TWO), 'or not a tar, or a compressed one'),
    'cut in the data': (TWO[:2500], "truncated or corrupt after '2.jpg': unexpected end of data; copy or download"),
    'cut in a header': (TWO[:1700], "truncated or corrupt after '1.jpg': no end mark"),
    'cut between members': (TWO[:1536], "truncated or corrupt after '1.jpg': no end mark"),
    'damaged header': (TWO[:1600] + b'\xff' * 8 + TWO[1608:], "after '1.jpg': no header at byte 1536"),
    'huge header': (HUGE.tobuf() + bytes(2**21), 'a header of 1073741824 bytes'),
}


@pytest.mark.parametrize('case', BAD_TARS)
def test_bad_tars_are_refused(case: str, tmp_path: Path) -> None:
    content, message = BAD_TARS[case]
    (tmp_path / '1.tar').write_bytes(content)
    with pytest.raises(InputError, match=re.escape(str(tmp_path / '1.tar')) + '.*' + message):
        archives.list_tar(str(tmp_path / '1.tar'))


def test_decompressing_is_done_once(tmp_path: Path) -> None:
    path, work = tmp_path / 'flower_photos.tgz', tmp_path / 'work'
    path.write_bytes(gzip.compress(b'first'))
    os.utime(path, ns=(1, 1))
    target = archives.decompress(str(path), str(work))
    assert target == str(work / 'flower_photos.tar')
    assert Path(target).read_bytes() == b'first'
    Path(target).write_bytes(b'there')
    os.utime(target, ns=(1, 1))
    assert Path(archives.decompress(str(path), str(work))).read_bytes() == b'there'
    path.write_bytes(gzip.compress(b'another archive'))
    assert Path(archives.decompress(str(path), str(work))).read_bytes() == b'another archive'
    assert [found.name for found in work.iterdir()] == ['flower_photos.tar']


BAD_GZIPS = {
    'not gzip': (b'hello', 1000, 'not a gzip file, after 0 bytes'),
    'truncated': (gzip.compress(os.urandom(999))[:-9], 1000, 'truncated or corrupt'),
    'checksum': (gzip.compress(b'x' * 99)[:-8] + bytes(8), 1000, 'truncated or corrupt.*CRC'),
    'too large': (gzip.compress(bytes(1001)), 1000, 'holds more than 1000 bytes'),
}


@pytest.mark.parametrize('case', BAD_GZIPS)
def test_bad_gzip_files_are_refused_and_leave_nothing(case: str, tmp_path: Path) -> None:
    content, limit, message = BAD_GZIPS[case]
    (tmp_path / '1.gz').write_bytes(content)
    with pytest.raises(InputError, match=message):
        archives.decompress(str(tmp_path / '1.gz'), str(tmp_path / 'work'), limit)
    assert not list((tmp_path / 'work').iterdir())


def test_too_small_a_disk_is_told_before_it_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / '1.gz').write_bytes(gzip.compress(bytes(1000)))
    usage = collections.namedtuple('usage', 'free')
    monkeypatch.setattr(shutil, 'disk_usage', lambda _: usage(999))
    with pytest.raises(InputError, match=r'work: no space left to decompress .*1\.gz'):
        archives.decompress(str(tmp_path / '1.gz'), str(tmp_path / 'work'))
    assert not list((tmp_path / 'work').iterdir())
