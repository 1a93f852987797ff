"""What every source file must hold to, checked on its syntax tree."""

import ast
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from configs.options import flat_options
from tests.scripts import SCRIPTS

ROOT = Path(__file__).parents[1]
PACKAGES = ('support', 'configs', 'datasets', 'preprocessing', 'nets', 'engine', 'export', 'importing')
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob('*.py')) + sorted(ROOT.glob('*.py'))


def nodes(path: Path, *kinds: type[ast.AST]) -> Iterator[Any]:
    return (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds))


@pytest.mark.parametrize('path', SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_messages_are_raised_and_filled_in(path: Path) -> None:
    for node in nodes(path, ast.Raise):
        if isinstance(node.exc, ast.Call):
            texts = [argument for argument in node.exc.args if isinstance(argument, ast.Constant | ast.JoinedStr)]
            assert len(texts) <= 1, f'{path}:{node.lineno}: the message is a tuple'
            plain = [text.value for text in texts if isinstance(text, ast.Constant)]
            assert not any('{' in str(text) for text in plain), f'{path}:{node.lineno}: braces, but no f'
    for node in nodes(path, ast.Expr):
        called = node.value.func if isinstance(node.value, ast.Call) else None
        assert not (isinstance(called, ast.Name) and called.id.endswith('Error')), f'{path}:{node.lineno}: never raised'


@pytest.mark.parametrize('path', SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_say_what_a_function_does_or_returns(path: Path) -> None:
    for node in nodes(path, ast.FunctionDef):
        text = ast.get_docstring(node) or ''
        assert not text.startswith(('Returns what', 'Says whether')), f'{path}:{node.lineno}: {text.splitlines()[0]}'


def test_only_the_command_line_touches_flags() -> None:
    for path in SOURCES:
        text = path.read_text()
        if path.name != 'cli.py':
            assert 'FLAGS' not in text.replace('_FLAGS', ''), path


def test_keras_is_never_reached_through_tensorflow() -> None:
    for path in (*SOURCES, *(ROOT / 'tests').glob('*.py')):
        if path != Path(__file__):
            assert 'tf.keras' not in path.read_text(), path


def test_every_option_is_read_somewhere() -> None:
    holders = {'options', '_options', 'flags', 'output', 'log', 'checks', 'data', '_data', 'augment', 'config'}
    configs = [config for config, _ in SCRIPTS.values()]
    holders |= {group.name for config in configs for group in dataclasses.fields(config)}
    read = {
        node.attr
        for path in SOURCES
        if path.parent.name != 'configs'
        for node in nodes(path, ast.Attribute)
        if getattr(node.value, 'attr', getattr(node.value, 'id', None)) in holders  # as in `options.name`
    }
    declared = {name for config in configs for name in flat_options(config)}
    assert not declared - read
