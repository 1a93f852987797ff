"""`dataset.json` and `labels.txt`: what a complete data set holds.

manifest.write('/data/records', manifest.describe(conversion, source, finished_shards))
lines = manifest.summary(manifest.load('/data/records'))
"""

import json
import os
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from configs.errors import InputError
from datasets.conversion.disk import write_text
from datasets.conversion.journal import FinishedShard
from datasets.conversion.source import Source

MANIFEST, LABELS = 'dataset.json', 'labels.txt'


def describe(conversion: Mapping[str, Any], source: Source, shards: Sequence[FinishedShard]) -> dict[str, Any]:
    """Returns what dataset.json says; it depends on nothing but what was converted."""
    changes: Counter[str] = Counter()
    for shard in shards:
        changes.update(shard.changes)
    return {
        'name': conversion['dataset_name'],
        'options': {key: conversion[key] for key in ('resize_shorter_side', 'jpeg_quality')},
        'class_names': list(source.class_names),
        'class_ids': list(source.class_ids),
        'channels': source.channels,
        'splits': {split: _describe_split(split, shards, len(source.class_names)) for split in source.splits},
        'changed': dict(sorted(changes.items())),
        'skipped': [
            {'split': shard.split, 'image': name, 'reason': reason}
            for shard in shards
            for name, reason in shard.skipped
        ],
    }


def _describe_split(split: str, shards: Sequence[FinishedShard], num_classes: int) -> dict[str, Any]:
    labels: Counter[int] = Counter()
    files = []
    for shard in shards:
        if shard.split == split:
            labels.update(shard.labels)
            files.append({'file': shard.file, 'images': shard.num_images, 'bytes': shard.size, 'sha256': shard.sha256})
    return {
        'images': labels.total(),
        'bytes': sum(file['bytes'] for file in files),
        'images_per_class': [labels[label] for label in range(num_classes)],
        'shards': files,
    }


def labels_text(class_names: Sequence[str]) -> str:
    """Returns labels.txt: `id:name` a line."""
    return ''.join(f'{label}:{name}\n' for label, name in enumerate(class_names))


def write(dataset_dir: str, described: Mapping[str, Any]) -> None:
    """Writes dataset.json."""
    write_text(dataset_dir, MANIFEST, json.dumps(described, indent=1, ensure_ascii=False) + '\n')


def load(dataset_dir: str) -> dict[str, Any]:
    """Reads dataset.json.

    Raises:
        InputError: there is none, or it is not what `write` wrote.
    """
    path = os.path.join(dataset_dir, MANIFEST)
    try:
        with open(path, encoding='utf-8') as file:
            described = json.load(file)
    except OSError as error:
        raise InputError(f'{path}: {error.strerror}; it is written when a conversion is complete') from error
    except ValueError as error:
        raise InputError(f'{path}: damaged: {error}') from error
    if not isinstance(described, dict) or not {'name', 'class_names', 'splits'} <= described.keys():
        raise InputError(f'{path}: not a dataset.json of this converter')
    return described


def summary(described: Mapping[str, Any]) -> Iterator[str]:
    """Yields lines of text: images per split and class, what was changed, and each image that was left out."""
    for name, split in described['splits'].items():
        per_class = [count for count in split['images_per_class'] if count]
        spread = f'{min(per_class)} to {max(per_class)}' if per_class else 'no'
        yield (
            f'{name}: {split["images"]:,} images in {len(split["shards"])} files, {split["bytes"] / 1e6:,.1f} MB; '
            f'{len(per_class)} classes of {spread} images (median {statistics.median(per_class or [0]):g})'
        )
    for what, count in described['changed'].items():
        yield f'changed, {what}: {count:,}'
    for skipped in described['skipped']:
        yield f'left out: {skipped["image"]}: {skipped["reason"]}'
