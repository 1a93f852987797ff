"""The content of `dataset.json`, from what was converted.

described = describe(conversion, source, finished_shards)
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from datasets.conversion.journal import FinishedShard
from datasets.source import Source


def describe(conversion: Mapping[str, Any], source: Source, shards: Sequence[FinishedShard]) -> dict[str, Any]:
    """Returns the content of dataset.json, which depends only on what was converted."""
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
