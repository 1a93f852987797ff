"""Conversion of any source to TFRecords of slim's schema, in parallel and resumable.

    convert(make_config(ConvertConfig, dataset_name='imagenet', source_dir='/data/ilsvrc', dataset_dir='/data/records'))

The output depends only on the source and the options: the order on the images' names, each record on its image.
Shards are written under temporary names and renamed when complete; the folder's journal lists the complete ones, so a
conversion that was stopped in any way resumes with the rest.
"""

import contextlib
import hashlib
import os
import shutil
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from configs.conversion import ConvertConfig, RecordOptions
from datasets import manifest
from datasets.conversion.journal import FinishedShard, Journal
from datasets.conversion.recipe import Encoding, Layout, Recipe, layout_of
from datasets.conversion.shards import Shard, default_count, fingerprint, plan_shards, write_shards
from datasets.conversion.sources import check_options, open_source
from datasets.conversion.stopping import run_until_signal, write_text
from datasets.regular_files import check_local
from datasets.source import Source
from support.errors import InputError
from support.processor import usable_cores
from support.progress import Progress

_WORK_DIR = '.conversion.source'  # in the data set's folder: decompressed archives, until the conversion is complete
_FORMAT_VERSION = 1  # of the records: a converter that writes other bytes must not resume


def convert(config: ConvertConfig) -> int:
    """Converts a data set as `download_and_convert_data.py` does, and prints a summary of it.

    Returns:
        The exit status: 0, or 128 + the number of the signal that stopped the conversion.

    Raises:
        InputError: Any error that the user can correct.
    """
    name, dataset_dir = check_options(config.source), config.records.dataset_dir
    if dataset_dir is None:
        raise InputError('--dataset_dir is missing: the folder for the TFRecords')
    check_local('dataset_dir', dataset_dir)
    layout = layout_of(name)
    _check_quality(config.records, layout)
    _check_folders(config.source.source_dir, dataset_dir, may_be_inside=name != 'image_folder')

    def work() -> int:
        with Journal(dataset_dir) as journal:
            work_dir = os.path.join(dataset_dir, _WORK_DIR)
            source = open_source(config.source, work_dir)
            _Conversion(config, layout, source, dataset_dir, journal).run()
            shutil.rmtree(work_dir, ignore_errors=True)
        return 0

    return run_until_signal(work, 'finished files are kept; the same command goes on')


def _check_quality(options: RecordOptions, layout: Layout) -> None:
    """Raises InputError for a JPEG quality if no image is encoded with it."""
    if options.jpeg_quality == RecordOptions.jpeg_quality:
        return
    if options.resize_shorter_side is None:
        raise InputError(
            f'--jpeg_quality={options.jpeg_quality}: applies only to shrunken images; give --resize_shorter_side '
            'too, or leave it out'
        )
    if layout.keep_png:
        raise InputError(f'--jpeg_quality={options.jpeg_quality}: the images of this data set stay PNGs; leave it out')


def _check_folders(source_dir: str | None, dataset_dir: str, may_be_inside: bool) -> None:
    """Raises InputError if the output would be written into the source."""
    if source_dir is None:
        return
    source, target = os.path.realpath(source_dir), os.path.realpath(dataset_dir)
    if source == target or (not may_be_inside and target.startswith(source + os.sep)):
        raise InputError(f'--dataset_dir={dataset_dir}: must be outside --source_dir={source_dir}')


class _Conversion:
    """The conversion of one source into one folder."""

    def __init__(self, config: ConvertConfig, layout: Layout, source: Source, dataset_dir: str, journal: Journal):
        self._config, self._layout, self._source = config, layout, source
        self._dir, self._journal = dataset_dir, journal
        counts = shard_counts(config.records, layout, source)
        self._shards = plan_shards(source.splits, counts, layout.pattern)
        self._conversion = _identify(config.source.dataset_name, config.records, source, counts)

    def run(self) -> None:
        """Converts the shards that are not finished."""
        self._journal.begin(self._conversion, [self._layout.glob(split) for split in self._source.splits])
        unfinished = self._unfinished()
        # Written first, because readers that find the records expect it.
        if unfinished or not os.path.exists(os.path.join(self._dir, manifest.LABELS)):
            write_text(self._dir, manifest.LABELS, manifest.labels_text(self._source.class_names))
        path = os.path.join(self._dir, manifest.MANIFEST)
        if os.path.exists(path):
            if not unfinished:
                print(f'nothing to do: {self._dir} is complete; --verify compares what it holds with dataset.json')
                return
            os.remove(path)  # files have been removed since it was written
        seconds = self._write(unfinished)
        finished = [self._journal.finished[shard.file] for shard in self._shards]
        described = _describe(self._conversion, self._source, finished)
        for split, parts in described['splits'].items():
            if not parts['images']:
                raise InputError(
                    f'split {split}: none of its images could be read: {described["skipped"][0]["reason"]}'
                )
        write_text(self._dir, manifest.MANIFEST, manifest.manifest_text(described))
        self._journal.sort([shard.file for shard in self._shards])
        written = sum(self._journal.finished[shard.file].num_images for shard in unfinished)
        self._report(described, written, seconds)

    def _unfinished(self) -> list[Shard]:
        """Returns the shards that are not finished.

        Raises:
            InputError: A finished shard was made from other images than the source has now.
        """
        finished = self._journal.finished
        for shard in self._shards:
            if shard.file in finished and finished[shard.file].source != fingerprint(shard):
                raise InputError(
                    f'--dataset_dir={self._dir}: {shard.file} there was made from other images than the source has '
                    'now; choose another folder, or delete this one'
                )
        return [shard for shard in self._shards if shard.file not in finished]

    def _write(self, unfinished: Sequence[Shard]) -> float:
        """Writes shards; returns the seconds it took once all processes were ready."""
        work = self._config.work
        total = sum(len(shard.images) for shard in self._shards)
        done = total - sum(len(shard.images) for shard in unfinished)
        if done:
            logging.info('resuming: %d of %d images are in finished files', done, total)
        reported = done
        processes = work.num_processes or usable_cores()
        written = write_shards(unfinished, self._recipe(), self._journal, processes, work.max_bad_images)
        with contextlib.closing(written):
            next(written)
            start = time.monotonic()
            with Progress('converting', total, first=done, unit='image') as progress:
                for num_images in written:
                    done += num_images
                    if (done - reported) * 50 >= total or done == total:
                        progress.report(done, f'converted {done:,} of {total:,} images')
                        reported = done
        return time.monotonic() - start

    def _recipe(self) -> Recipe:
        options, source = self._config.records, self._source
        encoding = Encoding(
            jpeg_only=self._layout.imagenet,
            keep_png=self._layout.keep_png,
            resize_shorter_side=options.resize_shorter_side,
            jpeg_quality=options.jpeg_quality,
        )
        return Recipe(source.read, encoding, self._layout.imagenet, source.class_names, source.class_ids)

    def _report(self, described: Mapping[str, Any], num_images: int, seconds: float) -> None:
        for line in manifest.summary(described):
            print(line)
        speed = f', {num_images / seconds:,.0f} images/s' if num_images else ''
        print(f'{self._dir} is complete: {num_images:,} images converted in {seconds:,.1f} s{speed}')


def shard_counts(options: RecordOptions, layout: Layout, source: Source) -> dict[str, int]:
    """Returns the number of files of each split: from the options, slim's number, or by its size.

    Raises:
        InputError: Several files are requested for a split that is always one file.
    """
    counts = {}
    for split, images in source.splits.items():
        asked = options.train_shards if split == 'train' else options.validation_shards
        if layout.one_file and asked not in (None, 1):
            flag = 'train_shards' if split == 'train' else 'validation_shards'
            raise InputError(f'--{flag}={asked}: a split of this data set is one file, {layout.glob(split)}')
        count = 1 if layout.one_file else layout.shards.get(split)
        if count is None or count > max(1, len(images)):  # some of slim's files would be empty
            count = default_count(images)
        counts[split] = asked or count
    return counts


def _identify(
    dataset_name: str | None, options: RecordOptions, source: Source, counts: Mapping[str, int]
) -> dict[str, Any]:
    """Returns everything that determines the bytes, except the images."""
    side = options.resize_shorter_side
    classes = repr((source.class_names, source.class_ids)).encode()
    return {
        'format_version': _FORMAT_VERSION,
        'dataset_name': dataset_name,
        'resize_shorter_side': side,
        'jpeg_quality': options.jpeg_quality if side is not None else None,
        'shards': dict(counts),
        'classes': f'{len(source.class_names)} ({hashlib.sha256(classes).hexdigest()[:12]})',
    }


def _describe(conversion: Mapping[str, Any], source: Source, shards: Sequence[FinishedShard]) -> dict[str, Any]:
    """Returns the content of dataset.json, which depends only on the source and the options."""
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
