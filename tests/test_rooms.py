"""Who may import whom: a table of rooms, and that the code keeps to it."""

import ast
import collections
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.distributed.joining import SOURCE_FOLDERS
from tests.test_source import PACKAGES, ROOT

# Each room, and those that it may import besides itself. A room stands below those that import it: there is no circle.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    'support': (),
    'configs': ('support',),
    'preprocessing': ('configs', 'support'),
    'nets': ('support',),
    'datasets': ('configs', 'preprocessing', 'support'),
    'datasets.conversion': ('configs', 'datasets', 'support'),
    'engine.distributed': ('configs', 'support'),
    'engine.optim': ('configs', 'preprocessing', 'support'),
    'engine.checkpoints': ('configs', 'datasets', 'engine.optim', 'nets', 'support'),
    'engine.classifiers': (
        'configs',
        'datasets',
        'engine.checkpoints',
        'engine.optim',
        'nets',
        'preprocessing',
        'support',
    ),
    'engine.runs': ('configs', 'support'),
    'engine.evaluation': (
        'configs',
        'datasets',
        'datasets.conversion',  # the WordNet ids of ImageNet's classes
        'engine.checkpoints',
        'engine.classifiers',
        'engine.distributed',
        'engine.optim',
        'engine.runs',
        'nets',
        'preprocessing',
        'support',
    ),
    'engine.prediction': (
        'configs',
        'datasets',
        'datasets.conversion',  # a file that one predicts with is read as conversion reads it
        'engine.classifiers',
        'engine.distributed',
        'preprocessing',
        'support',
    ),
    'engine.training': (
        'configs',
        'datasets',
        'engine.checkpoints',
        'engine.classifiers',
        'engine.distributed',
        'engine.evaluation',
        'engine.optim',
        'engine.runs',
        'nets',
        'preprocessing',
        'support',
    ),
    'engine.speed': (
        'configs',
        'datasets',
        'engine.distributed',
        'engine.evaluation',
        'engine.optim',
        'engine.training',
        'support',
    ),
    'export': (
        'configs',
        'datasets',
        'engine.checkpoints',
        'engine.classifiers',
        'engine.prediction',
        'nets',
        'preprocessing',
        'support',
    ),
    'importing': (
        'configs',
        'datasets',
        'engine.checkpoints',
        'engine.classifiers',
        'nets',
        'preprocessing',
        'support',
    ),
}
WITHOUT_TENSORFLOW = ('support', 'configs')
LARGEST_SHARE = 0.15
FILES = {path.relative_to(ROOT): path for folder in PACKAGES for path in sorted((ROOT / folder).rglob('*.py'))}
MODULES = {'.'.join(file.with_suffix('').parts).removesuffix('.__init__') for file in FILES}


def room_of(module: str) -> str:
    parts = module.split('.')
    nested = '.'.join(parts[:2])
    return nested if nested in MAY_IMPORT else parts[0]


def imports(path: Path) -> Iterator[str]:
    """Yields the modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for name in node.names:
                whole = f'{node.module}.{name.name}'
                yield whole if whole in MODULES else node.module


@pytest.mark.parametrize('room', MAY_IMPORT)
def test_a_room_imports_only_what_the_table_allows(room: str) -> None:
    allowed = {room, *MAY_IMPORT[room]}
    others = {'benchmarks', 'tests', *PACKAGES}
    found = {
        f'{file} imports {module}'
        for file, path in FILES.items()
        if room_of('.'.join(file.with_suffix('').parts)) == room
        for module in imports(path)
        if module.split('.')[0] in others and room_of(module) not in allowed
    }
    assert not found


def test_the_table_has_no_circle_and_every_room_is_in_it() -> None:
    rooms = list(MAY_IMPORT)
    for place, room in enumerate(rooms):
        assert set(MAY_IMPORT[room]) <= set(rooms[:place]), room
    assert {room_of(module) for module in MODULES} - {'engine'} == set(MAY_IMPORT)


@pytest.mark.parametrize('room', WITHOUT_TENSORFLOW)
def test_the_lowest_rooms_need_no_tensorflow(room: str) -> None:
    for path in (ROOT / room).rglob('*.py'):
        assert not {'tensorflow', 'keras', 'numpy'} & {module.split('.')[0] for module in imports(path)}, path


def test_workers_compare_all_source_that_they_run() -> None:
    assert set(SOURCE_FOLDERS) == {room.split('.')[0] for room in ('engine.training', *MAY_IMPORT['engine.training'])}


def test_engine_holds_folders_only() -> None:
    assert [path.name for path in (ROOT / 'engine').glob('*.py')] == ['__init__.py']


def test_no_folder_is_a_drawer() -> None:
    lines: collections.Counter[Path] = collections.Counter()
    for file, path in FILES.items():
        lines[file.parent] += len(path.read_text().splitlines())
    folder, most = lines.most_common(1)[0]
    assert most <= LARGEST_SHARE * lines.total(), f'{folder} has {most} of {lines.total()} lines'
