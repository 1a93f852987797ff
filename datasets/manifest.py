"""`dataset.json` and `labels.txt`: the content of a complete data set.

text = manifest.manifest_text(described)
lines = manifest.summary(manifest.load('/data/records'))
described = manifest.check(json.loads(text), 'dataset.json')       # all fields and types are checked
"""

import json
import os
import reprlib
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from datasets.regular_files import read_file
from support.errors import InputError
from support.input_files import decode_text
from support.tables import format_table

MANIFEST, LABELS = 'dataset.json', 'labels.txt'
_MAX_CLASSES_LISTED = 20
_TYPES = {str: 'a string', int: 'a whole number from 0', list: 'a list', dict: 'an object'}

# The fields of a dataset.json, for `type_problems`.
_SCHEMA = {
    'name': str,
    'class_names': [str],
    'channels': int,
    'splits': {
        str: {
            'images': int,
            'bytes': int,
            'images_per_class': [int],
            'shards': [{'file': str, 'images': int, 'bytes': int, 'sha256': str}],
        }
    },
    'changed': {str: int},
    'skipped': [{'split': str, 'image': str, 'reason': str}],
}


def labels_text(class_names: Sequence[str]) -> str:
    """Returns labels.txt: `id:name` a line."""
    return ''.join(f'{label}:{name}\n' for label, name in enumerate(class_names))


def manifest_text(described: Mapping[str, Any]) -> str:
    """Returns dataset.json."""
    return json.dumps(described, indent=1, ensure_ascii=False) + '\n'


def load(dataset_dir: str) -> dict[str, Any]:
    """Reads dataset.json.

    Raises:
        InputError: The file is missing or has another format.
    """
    path = os.path.join(dataset_dir, MANIFEST)
    try:
        described = json.loads(decode_text(read_file(path)))
    except InputError:
        raise
    except OSError as error:
        raise InputError(f'{path}: {error.strerror}; it is written when a conversion is complete') from error
    except (ValueError, RecursionError) as error:
        raise InputError(f'{path}: damaged: {error}') from error
    if not isinstance(described, dict) or not {'name', 'class_names', 'splits'} <= described.keys():
        raise InputError(f'{path}: not a dataset.json of this converter')
    return check(described, path)


def check(described: Any, path: str) -> dict[str, Any]:
    """Returns the content of a dataset.json after checking it.

    Raises:
        InputError: A field is missing, has another type, or points outside the folder.
    """
    if problem := next(_problems(described), None):
        raise InputError(f'{path}: damaged, or of another version: {problem}; convert the data again')
    return described


def _problems(described: dict[str, Any]) -> Iterator[str]:
    yield from type_problems(described, _SCHEMA)
    if described['channels'] not in (1, 3):
        yield f'channels is {described["channels"]}, and must be 1 or 3'
    if not described['splits']:
        yield 'splits is empty'
    for name, split in described['splits'].items():
        if not split['shards']:
            yield f'splits.{name}.shards is empty'
        if len(split['images_per_class']) != len(described['class_names']):
            counts, classes = len(split['images_per_class']), len(described['class_names'])
            yield f'splits.{name}.images_per_class has {counts} numbers for {classes} classes'
        for shard in split['shards']:
            if not is_file_name(shard['file']):
                yield f'splits.{name} has the file {shard["file"]!r}, which is not one of this folder'


def is_file_name(name: str) -> bool:
    """Returns whether a name can be a file directly in the folder."""
    return name == os.path.basename(name) and name not in ('', '.', '..') and name.isprintable()


def type_problems(value: Any, schema: Any, where: str = '') -> Iterator[str]:
    """Yields a description of each field of `value` that is missing or does not match `schema`.

    Args:
        value: Parsed JSON.
        schema: `str`, `int` (from 0), `[schema of each element]`, `{key: schema}`, or `{str: schema of each value}`.
        where: Path of `value` in a larger value.
    """
    kind: Any = schema if isinstance(schema, type) else type(schema)
    name = where.removeprefix('.') or 'it'
    if not isinstance(value, kind) or isinstance(value, bool) or (kind is int and not 0 <= value < 2**63):
        yield f'{name} is {reprlib.repr(value)}, and must be {_TYPES[kind]}'
    elif kind is str and value != value.encode(errors='replace').decode():  # JSON can escape single surrogates
        yield f'{name} is {value!r}, which is no text'
    elif kind is list:
        for number, element in enumerate(value):
            yield from type_problems(element, schema[0], f'{where}[{number}]')
    elif kind is dict:
        fields = dict.fromkeys(value, schema[str]) if str in schema else schema
        for key, of_field in fields.items():
            if key not in value:
                yield f'{f"{where}.{key}".removeprefix(".")} is missing'
            else:
                yield from type_problems(value[key], of_field, f'{where}.{key}')


def summary(described: Mapping[str, Any]) -> Iterator[str]:
    """Yields lines of text: images per split and class, changes made, and each image left out."""
    for name, split in described['splits'].items():
        per_class = [count for count in split['images_per_class'] if count]
        spread = f'{min(per_class)} to {max(per_class)}' if per_class else 'no'
        yield (
            f'{name}: {split["images"]:,} images in {len(split["shards"])} files, {split["bytes"] / 1e6:,.1f} MB; '
            f'{len(per_class)} classes of {spread} images (median {statistics.median(per_class or [0]):g})'
        )
    yield from _per_class(described['class_names'], described['splits'])
    for what, count in described['changed'].items():
        yield f'changed, {what}: {count:,}'
    for skipped in described['skipped']:
        yield f'left out: {skipped["image"]}: {skipped["reason"]}'


def _per_class(class_names: Sequence[str], splits: Mapping[str, Any]) -> Iterator[str]:
    """Yields a table of the images per class and split, or a reference to `dataset.json` if it would be long."""
    if len(class_names) > _MAX_CLASSES_LISTED:
        yield f'images of each of the {len(class_names):,} classes: {MANIFEST}, images_per_class'
        return
    rows = [('images per class', *splits)]
    counts = zip(*(split['images_per_class'] for split in splits.values()), strict=True)
    rows += [(name, *(f'{count:,}' for count in of_class)) for name, of_class in zip(class_names, counts, strict=True)]
    yield format_table(rows, numbers=True)
