"""Flagfiles: what they hold, by absl's rules, and what is refused."""

import os
import re
from pathlib import Path

import pytest
from absl import flags

from configs import flagfiles
from support.errors import InputError

VALUES = ('alpha', 'beta')


def texts(arguments: list[str], **kwargs: bool) -> list[str]:
    return [argument.text for argument in flagfiles.expand(arguments, VALUES.__contains__, **kwargs)]


@pytest.fixture(name='here')
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('HOME', str(tmp_path))
    Path('a.cfg').write_text('# comment\n// comment\n\n  --alpha=1  \n--flagfile=b.cfg\n--on\n')
    Path('b.cfg').write_text('--beta=two words\n--flagfile=\n')
    return tmp_path


@pytest.mark.parametrize(
    'arguments',
    [
        ['--flagfile=a.cfg', '--alpha=3'],
        ['-flagfile', 'a.cfg'],
        ['--flagfile=~/a.cfg'],
        ['--alpha', '5', '--flagfile=b.cfg'],
        ['--alpha', '5', 'other', '--flagfile=a.cfg'],
        ['--on', '--', '--flagfile=a.cfg'],
        ['--on', 'x', '--flagfile=a.cfg'],
        ['--flagfile='],
        [],
    ],
)
@pytest.mark.parametrize('is_gnu', [False, True])
def test_arguments_are_those_of_absl(arguments: list[str], is_gnu: bool, here: Path) -> None:
    del here
    values = flags.FlagValues()
    for name in VALUES:
        flags.DEFINE_string(name, None, '', flag_values=values)
    flags.DEFINE_bool('on', False, '', flag_values=values)
    values.set_gnu_getopt(is_gnu)
    expected = values.read_flags_from_files(arguments, force_gnu=False)
    assert texts(arguments, stops_at_others=not is_gnu) == expected


def test_the_command_line_is_told_from_files(here: Path) -> None:
    del here
    arguments = flagfiles.expand(['--flagfile=a.cfg', '--noon', '--alpha', '5'], VALUES.__contains__)
    assert [argument.flag for argument in arguments if argument.file is None] == ['noon', 'alpha', '']
    assert {argument.file for argument in arguments} == {'a.cfg', 'b.cfg', None}


def test_a_pipe_is_read_once(here: Path) -> None:
    del here
    read_end, write_end = os.pipe()
    os.write(write_end, b'--alpha=1\n')
    os.close(write_end)
    assert texts([f'--flagfile=/dev/fd/{read_end}']) == ['--alpha=1']
    os.close(read_end)


@pytest.mark.parametrize(
    ('files', 'message'),
    [
        ({'x': '--flagfile=x'}, '--flagfile=x: includes itself'),
        ({'x': '--flagfile=y', 'y': '--flagfile=x'}, '--flagfile=x: includes itself, by way of y'),
        (
            {'x': '--flagfile=0', **{str(i): f'--flagfile={i + 1}' for i in range(3000)}},
            '--flagfile=x: includes a chain of more than 32 flagfiles',
        ),
        ({'x': '--flagfile=none'}, "Unable to open flagfile 'none': No such file or directory"),
        ({'x': '--flagfile'}, '--flagfile=x: a line contains --flagfile without a path; write --flagfile=PATH'),
        ({'x': '\n' * (2**20 + 1)}, '--flagfile=x: longer than 1048576 characters; not a flagfile'),
        ({'x': '--flagfile=a\0b'}, "Unable to open flagfile 'a\\x00b': embedded null byte"),
    ],
)
def test_files_that_are_refused(files: dict[str, str], message: str, here: Path) -> None:
    del here
    for name, text in files.items():
        Path(name).write_text(text)
    with pytest.raises(InputError, match=f'^{re.escape(message)}'):
        texts(['--flagfile=x'])


def test_files_that_editors_of_windows_wrote(here: Path) -> None:
    (here / 'x').write_bytes(b'\xef\xbb\xbf--alpha=1\r\n# comment\r--beta=2')
    assert texts(['--flagfile=x']) == ['--alpha=1', '--beta=2']


def test_files_that_are_no_text(here: Path) -> None:
    (here / 'x').write_bytes(b'\xff\xfe--alpha=1\n')
    with pytest.raises(InputError, match="'x': not UTF-8 text"):
        texts(['--flagfile=x'])
    (here / 'x').write_text('--alpha=1\n', encoding='utf-16')
    with pytest.raises(InputError, match=r"'x': not UTF-8 text: it begins as UTF-16 does; save it as UTF-8$"):
        texts(['--flagfile=x'])
    with pytest.raises(InputError, match="'/': Is a directory"):
        texts(['--flagfile=/'])
    with pytest.raises(InputError, match='/dev/zero: longer than'):
        texts(['--flagfile=/dev/zero'])
    os.mkfifo(here / 'pipe')
    with pytest.raises(
        InputError, match='--flagfile=pipe: is a pipe; must be a regular file'
    ):  # for which nobody would write
        texts(['--flagfile=pipe'])
    with pytest.raises(InputError, match='--flagfile: no file given'):
        texts(['--flagfile'])
