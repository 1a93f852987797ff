"""What README, docs and recipes tell people to type: it exists, it parses, and the short ones run."""

import ast
import fnmatch
import functools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.scripts import SCRIPTS, flag_names

ROOT = Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text()
FLAGS = {script: flag_names(script) for script in SCRIPTS}
OF_ABSL = {'alsologtostderr', 'flagfile', 'help'}


def commands(text: str) -> list[str]:
    """Returns the calls of our scripts in a text, with lines continued by a backslash joined."""
    joined = re.sub(r'\\\n#?\s*', '', text)
    scripts = '|'.join(map(re.escape, SCRIPTS))
    return re.findall(rf"python (?:{scripts})(?: +--(?:'[^']*'|[^\s`|'])+)*", joined)


def all_commands() -> list[tuple[str, str]]:
    paths = [ROOT / 'README.md', *(ROOT / 'docs').glob('*.md'), *(ROOT / 'configs').glob('*.cfg')]
    return [(path.name, command) for path in sorted(paths) for command in commands(path.read_text())]


def code_block(language: str, containing: str) -> str:
    blocks = re.findall(rf'```{language}\n(.*?)```', README, re.DOTALL)
    (block,) = [block for block in blocks if containing in block]
    return block


@pytest.mark.parametrize(('source', 'command'), all_commands())
def test_commands_use_flags_and_recipes_that_exist(source: str, command: str) -> None:
    _, script, *flags = shlex.split(command)
    for flag in flags:
        name, _, value = flag.removeprefix('--').partition('=')
        assert name.removeprefix('no') in FLAGS[script] | OF_ABSL or name in FLAGS[script] | OF_ABSL, (
            f'{source}: {flag}'
        )
        if name == 'flagfile':
            assert (ROOT / value).exists(), f'{source}: {flag}'


@pytest.mark.parametrize('recipe', sorted((ROOT / 'configs').glob('*.cfg')), ids=lambda path: path.stem)
def test_recipes_are_lab_notes_in_the_readme(recipe: Path) -> None:
    text = recipe.read_text()
    assert f'--flagfile=configs/{recipe.name}' in text, 'the command that repeats it'
    note = re.sub(r'\n# ?', ' ', text)
    assert 'Not yet measured' in note or re.search(r'Measured: .*\d{4}-\d\d-\d\d', note), (
        'its result and date, or none yet'
    )
    assert f'configs/{recipe.name}' in README
    for line in text.splitlines():
        if line.startswith('--'):
            name = line[2:].partition('=')[0]
            assert {name, name.removeprefix('no')} & FLAGS['train_image_classifier.py'], line


def test_every_script_is_tested() -> None:
    assert set(SCRIPTS) == {path.name for path in ROOT.glob('*.py')}


def test_make_targets_of_the_readme_exist() -> None:
    targets = set(re.findall(r'^([a-z]+):', (ROOT / 'Makefile').read_text(), re.MULTILINE))
    named = set(re.findall(r'^make ([a-z]+)', README, re.MULTILINE))
    assert named
    assert named <= targets


def test_no_placeholder_is_left() -> None:
    assert not re.findall(r'\b(?:TEST|DEMO|DIGITS|CIFAR)_[A-Z]+\b|TODO|TBD', README)


def test_links_of_the_documents_lead_somewhere() -> None:
    for path in (ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *(ROOT / 'docs').glob('*.md')):
        for target in re.findall(r'\]\(([^)#:]+)\)', path.read_text()):
            assert (path.parent / target).exists(), f'{path.name}: {target}'


@pytest.mark.full
def test_slims_commands_run_as_written(tmp_path: Path, shared_path: Callable[[str], Path]) -> None:
    """On real ImageNet photographs, at full width and size; only the length is bounded."""
    block = code_block('', 'DATASET_DIR=')
    train, evaluate = commands(block)
    environment = {**os.environ, 'DATASET_DIR': str(shared_path('data/imagenet_mini')), 'TRAIN_DIR': str(tmp_path)}
    python = shlex.quote(sys.executable)

    def shell(command: str) -> subprocess.CompletedProcess:
        command = command.replace('python', python, 1)
        options = {'shell': True, 'cwd': ROOT, 'env': environment, 'capture_output': True, 'text': True}
        return subprocess.run(command, timeout=280, **options)  # type: ignore[call-overload]

    trained = shell(f'{train} --max_number_of_steps=2')
    assert trained.returncode == 0, trained.stderr
    assert 'alexnet_v2 on imagenet, split train: 160 examples of 1001 classes, 224 px, inception' in trained.stderr
    evaluated = shell(evaluate)
    assert evaluated.returncode == 0, evaluated.stderr
    for line in ('eval/Accuracy[', 'eval/Recall_5[', 'evaluated 40 of 40'):
        assert line in evaluated.stdout


def test_the_python_example_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))  # of the embedded digits, and not the user's
    example = code_block('python', 'import train').replace('/tmp/lenet', str(tmp_path / 'lenet'))
    exec(compile(example, 'README.md', 'exec'), {})
    assert 'evaluated 360 of 360' in capsys.readouterr().out


def promises() -> list[tuple[str, str]]:
    """Returns each promise of docs/reliability.md, by its first words, and the tests that it names."""
    rows = [line.strip('| ').split(' | ') for line in (ROOT / 'docs/reliability.md').read_text().splitlines()]
    return [(row[0][:60], row[1]) for row in rows if len(row) == 2 and 'test_' in row[1]]


@functools.cache
def whether_run_by_name() -> dict[str, bool]:
    """Returns whether `make test` runs a test, at least in some case, by `<file>: <name>`."""
    found = {}
    for path in (ROOT / 'tests').glob('test_*.py'):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith('test_'):
                is_full = 'pytest.mark.full' in map(ast.unparse, node.decorator_list)
                found[f'{path.name}: {node.name}'] = not is_full
    return found


@pytest.mark.parametrize(('promise', 'held_by'), promises())
def test_each_promise_of_reliability_is_held_by_make_test(promise: str, held_by: str) -> None:
    tests = whether_run_by_name()
    # A file alone stands for all its tests.
    named = re.findall(r'(test_\w+\.py)(?!:)|(test_\w+\*?)(?![\w.])', held_by)
    patterns = [f'{file}: *' if file else f'*: {name}' for file, name in named]
    held = {pattern: [tests[test] for test in fnmatch.filter(tests, pattern)] for pattern in patterns}
    assert not [pattern for pattern, found in held.items() if not found], 'no such tests'
    assert any(map(any, held.values())), f'{promise}: all its tests are full'
