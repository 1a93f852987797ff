"""Exports and imports replace what was there at once: killed at every rename, two at a time, too long a name."""

import functools
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from configs.export import ExportConfig
from configs.options import make_config
from engine import checkpoints
from engine.classifiers.model_spec import ModelSpec
from export import exporting
from importing import folder
from support import atomic
from support.errors import InputError
from tests.runs import files, saved_values

pytestmark = [
    pytest.mark.usefixtures('no_process_is_left'),
    # Keras 3.15, saving a tf.Variable with NumPy 2 (2026-11-21).
    pytest.mark.filterwarnings('ignore:__array__ implementation:DeprecationWarning'),
]

Write = Callable[[str], None]


def write_file(path: str) -> None:
    with atomic.atomic_path(path, 'output_path') as part:
        Path(part).write_text('new')


def write_folder(path: str) -> None:
    with atomic.atomic_path(path, 'output_path') as part:
        os.mkdir(part)
        Path(part, 'new').write_text('new')


def killed(write: Write, path: str, at: int, can_exchange: bool) -> None:
    """Writes, and ends as by `kill -9` at a rename: 0 is before the first, 1 behind it, 2 before the second, ..."""
    moments = 0

    def may_die() -> None:
        nonlocal moments
        if moments == at:
            os.kill(os.getpid(), signal.SIGKILL)
        moments += 1

    def around(function):
        def call(*arguments):
            may_die()
            result = function(*arguments)
            may_die()
            return result

        return call

    os.rename = around(os.rename)
    atomic._exchange = around(atomic._exchange) if can_exchange else lambda *_: False
    write(path)


def run_killed(server, write: Write, path: Path, at: int, can_exchange: bool = True) -> bool:
    """Returns whether the process came to the moment."""
    process = server.Process(target=killed, args=(write, str(path), at, can_exchange), daemon=True)
    process.start()
    process.join(120)
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0


def make_old(write: Write, path: Path) -> None:
    if write is write_file:
        path.write_text('old')
    else:
        path.mkdir()
        (path / 'old').write_text('old')


def content(path: Path) -> str | None:
    if path.is_dir():
        (only,) = path.iterdir()
        return only.name
    return path.read_text() if path.exists() else None


# What is written, whether the file system exchanges folders, what is there after a kill at each moment.
KILLS: dict[str, tuple[Write, bool, list[str | None]]] = {
    'file': (write_file, True, ['old', 'new']),
    'folder': (write_folder, True, ['old', 'new']),
    'folder, in two steps': (write_folder, False, ['old', None, None, 'new']),
}


@pytest.mark.parametrize('case', KILLS)
def test_killed_at_each_rename(server, tmp_path, make_fault, case):
    fault = make_fault(f'kill -9, at each rename: {case}')
    write, can_exchange, left = KILLS[case]
    for at, expected in enumerate(left):
        path = tmp_path / str(at) / 'net'
        path.parent.mkdir()
        make_old(write, path)
        assert run_killed(server, write, path, at, can_exchange)
        fault.inject()
        assert content(path) == expected
        assert (path.parent / '.part-net').is_dir()
        atomic.recover(str(path), 'output_path')
        assert content(path) == (expected or 'old')
        assert os.listdir(path.parent) == ['net']
    assert not run_killed(server, write, path, len(left), can_exchange)  # and no more moments
    fault.survived([])


def test_killed_where_nothing_was(server, tmp_path):
    for at, expected in enumerate([None, 'new']):
        path = tmp_path / str(at) / 'deeper' / 'net'
        assert run_killed(server, write_folder, path, at)
        assert content(path) == expected
        write_folder(str(path))
        assert os.listdir(path.parent) == ['net']


# ------------------------------------------------------------------------ the roads


def export_over(checkpoint: str, path: str) -> None:
    exporting.export(make_config(ExportConfig, checkpoint_path=checkpoint, output_path=path, overwrite=True))


def import_over(spec: ModelSpec, seed: int, path: str) -> None:
    """Writes a net with the weights of a seed as an import does."""
    folder.check_train_dir(path, overwrite=True)
    folder.write(path, spec.make_model(seed=seed), spec, overwrite=True)


def weights(path: Path) -> bytes:
    values = saved_values(checkpoints.find_checkpoint(str(path)))
    return b''.join(values[name].tobytes() for name in sorted(values))


@pytest.fixture
def roads(trained, tmp_path) -> dict[str, tuple[Write, ...]]:
    spec = ModelSpec.of_checkpoint(checkpoints.Checkpoint(trained.checkpoint_path))
    assert spec is not None
    second = tmp_path / 'second'
    import_over(spec, 1, str(second))
    exports = [functools.partial(export_over, path) for path in (trained.checkpoint_path, str(second))]
    return {'export': tuple(exports), 'import': tuple(functools.partial(import_over, spec, seed) for seed in (2, 3))}


@pytest.mark.parametrize('road', ['export', 'import'])
@pytest.mark.parametrize('can_exchange', [True, False])
def test_a_killed_replacement_leaves_one_of_the_two(server, roads, tmp_path, make_fault, road, can_exchange):
    fault = make_fault(f'kill -9, {road} over a folder')
    write_first, write_second = roads[road]
    whole = []
    for write in (write_first, write_second):
        write(str(tmp_path / 'whole'))
        whole.append(weights(tmp_path / 'whole'))
    first, second = whole
    assert first != second
    path = tmp_path / 'place' / 'net'
    for at, expected in enumerate([first, second] if can_exchange else [first, first, first, second]):
        write_first(str(path))
        assert run_killed(server, write_second, path, at, can_exchange)
        fault.inject()
        atomic.recover(str(path), 'output_path')
        assert weights(path) == expected
        assert os.listdir(path.parent) == ['net']
        write_second(str(path))
        assert weights(path) == second
    fault.survived([])


# ------------------------------------------------------------------------ two at a time


def test_a_second_export_to_one_place_is_refused_at_once(trained, tmp_path, monkeypatch):
    path = str(tmp_path / 'net.keras')
    config = make_config(ExportConfig, checkpoint_path=trained.checkpoint_path, output_path=path)
    message = rf'^--output_path={path}: another process is writing it; wait for it, stop it, or give another name$'
    with monkeypatch.context() as patch, atomic.atomic_path(path, 'output_path') as part:
        patch.setattr(exporting, 'load_source', None)
        with pytest.raises(InputError, match=message):
            exporting.export(config)
        with pytest.raises(InputError, match=message), atomic.atomic_path(path, 'output_path'):
            pass
        exporting.check_output(str(tmp_path / 'other.keras'), '.keras', overwrite=False)
        Path(part).write_text('first')
    assert os.listdir(tmp_path) == ['net.keras']
    assert Path(path).read_text() == 'first'


def test_what_came_while_it_was_written_is_not_replaced(trained, tmp_path, monkeypatch):
    path = tmp_path / 'net.keras'
    load = exporting.load_source

    def load_slowly(*arguments):
        path.write_text('mine')
        return load(*arguments)

    monkeypatch.setattr(exporting, 'load_source', load_slowly)
    with pytest.raises(InputError, match=r'net\.keras already exists; choose another path, or add --overwrite'):
        exporting.export(make_config(ExportConfig, checkpoint_path=trained.checkpoint_path, output_path=str(path)))
    assert os.listdir(tmp_path) == ['net.keras']
    assert path.read_text() == 'mine'


def test_what_came_into_a_folder_while_an_import_was_written_stays(trained, roads, tmp_path):
    write, _ = roads['import']
    path = tmp_path / 'net'
    write(str(path))
    before = files(path)

    def write_while_others_do() -> None:
        with atomic.atomic_path(str(path), 'train_dir') as part:
            os.mkdir(part)
            (path / 'thesis.txt').write_text('mine')
            folder.check_free(str(path), overwrite=True)

    with pytest.raises(
        InputError, match=r'^--train_dir=\S+ holds a run, which is not replaced; choose another folder$'
    ):
        write_while_others_do()
    assert {name: there for name, there in files(path).items() if name != 'thesis.txt'} == before
    assert (path / 'thesis.txt').read_text() == 'mine'
    assert not (tmp_path / '.part-net').exists()


@pytest.mark.parametrize('kind', ['file', 'link'])
def test_what_is_in_the_way_is_named_before_the_work(trained, tmp_path, monkeypatch, kind):
    monkeypatch.setattr(exporting, 'load_source', None)
    beside = tmp_path / '.part-net'
    beside.touch() if kind == 'file' else beside.symlink_to('/tmp')
    config = make_config(ExportConfig, checkpoint_path=trained.checkpoint_path, output_path=str(tmp_path / 'net'))
    with pytest.raises(InputError, match=rf': {beside} is in the way: the output is written there first; move'):
        exporting.export(config)
    assert beside.is_symlink() == (kind == 'link')


# ------------------------------------------------------------------------ exchange


def test_exchange(tmp_path):
    for name in ('a', 'b'):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    if not atomic._exchange(str(tmp_path / 'a'), str(tmp_path / 'b')):
        pytest.skip('this file system cannot exchange folders')
    assert (os.listdir(tmp_path / 'a'), os.listdir(tmp_path / 'b')) == (['b'], ['a'])
    with pytest.raises(FileNotFoundError):
        atomic._exchange(str(tmp_path / 'a'), str(tmp_path / 'none'))


@pytest.mark.parametrize('error', [OSError(5, 'Input/output error'), KeyboardInterrupt()])
def test_a_replacement_that_fails_leaves_what_was_there(tmp_path, monkeypatch, error):
    monkeypatch.setattr(atomic, '_exchange', lambda *_: False)
    path, rename = tmp_path / 'net', os.rename
    make_old(write_folder, path)

    def fail_once(source: str, target: str) -> None:
        if source.endswith('new/net'):
            raise error
        rename(source, target)

    monkeypatch.setattr(os, 'rename', fail_once)
    with pytest.raises((InputError, KeyboardInterrupt)) as raised:
        write_folder(str(path))
    if isinstance(error, OSError):
        assert str(raised.value) == f'--output_path={path}: [Errno 5] Input/output error'
    assert (content(path), os.listdir(tmp_path)) == ('old', ['net'])


def test_what_cannot_be_put_back_is_not_deleted(tmp_path, monkeypatch):
    monkeypatch.setattr(atomic, '_exchange', lambda *_: False)
    path, rename = tmp_path / 'net', os.rename
    make_old(write_folder, path)

    def fail(source: str, target: str) -> None:
        if target == str(path):
            raise OSError(5, 'Input/output error')
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, 'rename', fail)
        with pytest.raises(InputError, match='Input/output error'):
            write_folder(str(path))
    assert content(path) is None
    atomic.recover(str(path), 'output_path')
    assert (content(path), os.listdir(tmp_path)) == ('old', ['net'])


# ------------------------------------------------------------------------ names


@pytest.mark.parametrize(
    ('name', 'size', 'most'),
    [
        ('x' * 245, 250, 244),
        ('x' * 244, 249, 244),
        ('ü' * 122 + 'x', 250, 244),
        ('y' * 256 + '/x', 256, 255),
        ('none/' + 'y' * 256 + '/x', 256, 255),
    ],
)
def test_a_name_that_is_too_long_is_refused_before_the_work(trained, tmp_path, monkeypatch, name, size, most):
    monkeypatch.setattr(exporting, 'load_source', None)
    config = make_config(
        ExportConfig, checkpoint_path=trained.checkpoint_path, output_path=str(tmp_path / f'{name}.onnx')
    )
    with pytest.raises(
        InputError, match=rf': the name [xyü]{{16}}\.\.\. has {size} bytes; at most {most} can be written$'
    ):
        exporting.export(config)
    assert not list(tmp_path.iterdir())


def test_the_longest_name_can_be_written(trained, tmp_path):
    path = tmp_path / ('x' * 239 + '.onnx')
    config = make_config(
        ExportConfig, checkpoint_path=trained.checkpoint_path, output_path=str(path), sample_test_data=1
    )
    exporting.export(config)
    assert len(os.listdir(tmp_path)) == 3
    with pytest.raises(InputError, match=r'--train_dir=\S+: the name y{16}\.\.\. has 250 bytes; at most 249 can be'):
        folder.check_train_dir(str(tmp_path / ('y' * 250)), overwrite=False)
