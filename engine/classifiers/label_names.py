"""Reads class names from the file of `--labels_path`, in all common formats.

names = read_label_names('labels.txt', num_classes=1000, labels_offset=1)

One name per line; `id:name`, `id name` or `id,name` with ids 0, 1, 2, ... or 1, 2, 3, ..., also below a header (a
table's `id,name`, YAML's `names:`); YAML's `- tench`; `n01440764 tench, Tinca tinca` as in ImageNet's
synset_words.txt; a Python or JSON list or dict: `['tench', ...]`, `{0: 'tench', ...}`, Keras'
imagenet_class_index.json `{"0": ["n01440764", "tench"], ...}`, and Keras' class_indices `{'tench': 0, ...}`.
"""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from datasets.regular_files import read_file
from support.errors import InputError, first_line
from support.input_files import NotUtf8Error, decode_text

_MAX_BYTES = 1 << 26  # enough for a million classes with long names
_MAX_LITERAL = 1 << 23  # Python's parser takes hundreds of megabytes for this size

_ASSIGNED = re.compile(r'\A\s*[A-Za-z_]\w*\s*=\s*(?=[\[{(])')
_SYNSET = re.compile(r'n\d{8}')
_NUMBERED = re.compile(r'(\d+)\s*[:,;\t ]\s*(.*)')
_NUMBERED_AND_QUOTED = re.compile(r"""\d+\s*:\s*(?:'.*'|".*"),?""")
_QUOTED = re.compile(r"""(?:'.*'|".*"),?""")
_ITEM = '- '  # of a list in YAML
# First characters of files that do not contain names.
_OTHERS = {
    '<': 'a page of HTML or XML',
    'item {': 'a label map of the object detection API (.pbtxt)',
    '%PDF': 'a PDF',
    'PK\x03\x04': 'a zip archive',
}
_FORMS = 'one name a line, id:name, or a list or dict of Python or JSON is read'


def read_label_names(path: str, num_classes: int, labels_offset: int) -> tuple[str, ...]:
    """Reads the names of a net's classes, in any of the formats above.

    Args:
        path: The file, UTF-8, at most 64 MiB.
        num_classes: The net's number of classes.
        labels_offset: Number of the data set's classes that the net leaves out; the file may include their names.

    Raises:
        InputError: the file cannot be read, has another format, or has another number of names.
    """
    try:
        content = read_file(path, _MAX_BYTES)
    except InputError as error:  # which names the file
        raise InputError(f'--labels_path={error}') from error
    except (OSError, tf.errors.OpError) as error:
        raise InputError(f'--labels_path={path}: {first_line(error)}') from error
    try:
        names = _parse(_decode(content))
    except ValueError as error:
        raise InputError(f'--labels_path={path}: {first_line(error)}') from error
    if len(names) not in (num_classes, num_classes + labels_offset):
        raise InputError(
            f'--labels_path={path}: {len(names)} names; the net has {num_classes} classes'
            f'{_advice(names, num_classes, labels_offset)}'
        )
    return tuple(names[len(names) - num_classes :])


def _decode(data: bytes) -> str:
    try:
        return decode_text(data)
    except NotUtf8Error as error:
        raise ValueError(f'not UTF-8 text: {error}') from error


def _advice(names: Sequence[str], num_classes: int, labels_offset: int) -> str:
    if len(names) == num_classes + 1 and not labels_offset:
        return (
            f': give --labels_offset=1, which leaves out the first, {names[0]!r}, or take it out of the file, if it '
            "is the background class of slim's ImageNet"
        )
    if len(names) == num_classes - 1:
        return ": one is missing, perhaps the first, the background class of slim's ImageNet"
    return ''


def _parse(text: str) -> list[str]:
    """Returns the names in a text; raises ValueError if the format is unknown."""
    text = text.strip()
    other = next((what for start, what in _OTHERS.items() if text.startswith(start)), None)
    if other is not None or '\0' in text:
        raise ValueError(f'{other or "no text"}, not names of classes: {_FORMS}')
    literal = _ASSIGNED.sub('', text)
    if literal.startswith(('{', '[', '(')):
        return _names_of(_literal(literal))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for form, braces in ((_NUMBERED_AND_QUOTED, '{}'), (_QUOTED, '[]')):  # a dict or list without its braces
        if lines and all(map(form.fullmatch, lines)):
            return _names_of(_literal(braces[0] + '\n'.join(line.rstrip(',') + ',' for line in lines) + braces[1]))
    return _of_lines(lines)


def _literal(text: str) -> Any:
    """Parses JSON or a Python literal (numbers, strings, lists, dicts) without running code."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        pass
    if len(text) > _MAX_LITERAL:
        raise ValueError(f'neither JSON nor short enough for a Python literal ({_MAX_LITERAL} bytes)')
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(
            f'begins like a list or dict, but is neither JSON nor a Python literal: {first_line(error)}; {_FORMS}'
        ) from error


def _names_of(value: Any) -> list[str]:
    """Returns the names in a list or dict."""
    if isinstance(value, Mapping):
        entries = list(value.items())
        if entries and all(type(number) is int for _, number in entries):  # Keras' class_indices
            entries = [(number, name) for name, number in entries]
        return _in_order([(_number(key), _name(item)) for key, item in entries])
    if not isinstance(value, list | tuple):
        raise ValueError(f'a {type(value).__name__}, not names of classes: {_FORMS}')
    return [_name(item) for item in value]


def _number(key: Any) -> int:
    if type(key) is int:
        return key
    if isinstance(key, str) and re.fullmatch(r'[0-9]{1,9}', key.strip()):
        return int(key)
    raise ValueError(f'a dict whose key {str(key)[:60]!r} is not the number of a class')


def _name(item: Any) -> str:
    """Returns a class name, given as a name or as a pair of ImageNet's id and the name."""
    if isinstance(item, list | tuple) and len(item) == 2 and _SYNSET.fullmatch(str(item[0])):
        item = item[1]
    if type(item) not in (str, int):
        raise ValueError(f'{str(item)[:60]!r} is not the name of a class')
    return ' '.join(str(item).split())


def _in_order(numbered: Sequence[tuple[int, str]]) -> list[str]:
    """Returns names in the order of their numbers, which must be 0, 1, 2, ... or 1, 2, 3, ...

    Raises:
        ValueError: a number is missing or occurs twice.
    """
    ordered = sorted(numbered)
    first = ordered[0][0] if ordered and ordered[0][0] in (0, 1) else 0
    for expected, (number, name) in enumerate(ordered, first):
        if number != expected:
            raise ValueError(f'class {min(expected, number)} is listed twice, or {expected} is missing ({name[:60]!r})')
    return [name for _, name in ordered]


def _of_lines(lines: Sequence[str]) -> list[str]:
    """Returns the names in lines, without ids if all lines have them."""
    if lines and all(_SYNSET.match(line) and line[9:].strip() for line in lines):
        return [line[9:].strip(' \t:,') for line in lines]
    items = lines[1:] if lines and lines[0].endswith(':') else lines
    if items and all(line.startswith(_ITEM) for line in items):
        return [_unquoted(line.removeprefix(_ITEM).strip()) for line in items]
    if len(lines) > 2 and not lines[0][0].isdigit() and _has_ids(lines[1:]):  # below a table's header
        lines = lines[1:]
    matches = [match for line in lines if (match := _NUMBERED.fullmatch(line))]
    if matches and all(re.match(r'\d{1,9}\s*:', line) for line in lines):
        return _in_order([(int(match[1]), _unquoted(match[2].strip())) for match in matches])
    return [_unquoted(match[2].strip()) for match in matches] if _has_ids(lines) else list(lines)


def _has_ids(lines: Sequence[str]) -> bool:
    """Returns whether the lines begin with 0, 1, 2, ... or 1, 2, 3, ..."""
    numbers = [int(match[1]) for line in lines if (match := _NUMBERED.fullmatch(line)) and len(match[1]) < 10]
    return numbers in (list(range(len(lines))), list(range(1, len(lines) + 1)))


def _unquoted(name: str) -> str:
    """Returns a name without its quotes, as in CSV or YAML."""
    if len(name) > 1 and name[0] == name[-1] and name[0] in '"\'':
        return name[1:-1].replace(name[0] * 2, name[0])
    return name
