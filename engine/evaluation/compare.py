"""Evaluates several classifiers, of any format, on the same images.

results = compare(make_config(EvalConfig, compare=('/tmp/tfmodel', '/tmp/net.tflite', '/tmp/net.onnx')))
"""

import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from configs.devices import ClusterOptions
from configs.evaluation import EvalConfig, EvalOutputOptions
from engine.classifiers import size_in_bytes
from engine.distributed import distribution
from engine.distributed.cluster import SINGLE_PROCESS
from engine.distributed.kernels import set_precision
from engine.evaluation.dataset import find_dataset
from engine.evaluation.label_sets import open_label_set
from engine.evaluation.measure import EvalSource, Results, Subject, measure
from engine.evaluation.metrics import clip_recall_at
from engine.evaluation.outcomes import Collector
from engine.evaluation.report.gathering import gather
from engine.evaluation.report.page import write_report
from engine.evaluation.results import make_report_dir, print_differences, write_results
from engine.evaluation.rows import open_rows
from engine.evaluation.statistics import compare_pairs, compute
from engine.evaluation.subject import open_subject
from engine.evaluation.views import describe_views, views_in_report, with_views
from support.errors import InputError
from support.tables import format_table


def compare(config: EvalConfig) -> list[Results]:
    """Evaluates all files of `--compare` on the same examples and prints a table.

    Returns:
        For each file, the results of `measure`, and kind, bytes, path, step, temperature; images_per_second of the net
        alone, without reading and preparing images; and agreement, the share of images with the first file's top class.

    Raises:
        InputError: an error that the user can fix; nothing is written.
    """
    options = config.evaluation
    _refuse_options_of_one(config.output, config.cluster)
    make_report_dir(config.output.report_dir)
    strategy = distribution.make_strategy(config.devices)
    set_precision(config.net.mixed_precision, strategy)
    subjects = [open_subject(path, config, strategy, SINGLE_PROCESS, 'compare') for path in options.compare]
    dataset = find_dataset(options, config.net, subjects[0].path, subjects[0].spec, SINGLE_PROCESS)
    source = EvalSource(dataset, strategy, batch_size=options.batch_size, max_batches=options.max_num_batches)
    label_set = open_label_set(options, source, subjects, force=config.net.force)
    dataset = label_set.dataset
    recall_at = clip_recall_at(options.recall_at, dataset.num_classes)
    timed = [_Timed(with_views(subject, options, strategy), source) for subject in subjects]
    collectors = [Collector(index) for index in range(len(subjects))]
    with open_rows(config.output, dataset, subjects) as observers:
        measured = measure(timed, source, recall_at, [*collectors, *observers], relabel=label_set.relabel)
    outcomes = [collector.outcomes() for collector in collectors]
    statistics = [compute(found, recall_at) for found in outcomes]
    results = [
        {
            'kind': subject.kind,
            'bytes': size_in_bytes(subject.path),
            'path': subject.path,
            'step': subject.step,
            'temperature': subject.temperature,
            **counted,
            'images_per_second': round(clock.images / clock.seconds, 1),
            'agreement': float((found.predictions == outcomes[0].predictions).mean()),
            **of_subject.to_json(dataset.label_names),
        }
        for subject, clock, counted, found, of_subject in zip(
            *(subjects, timed, measured, outcomes, statistics), strict=True
        )
    ]
    differences = compare_pairs(options.compare, outcomes)
    print(_table(options.compare, results))
    print_differences(differences)
    print(f'evaluated {measured[0]["num_examples"]} of {dataset.num_examples}', flush=True)
    if config.output.results_path:
        data: Results = {'dataset_name': dataset.name, 'dataset_split_name': dataset.split, **describe_views(options)}
        if label_set.facts:
            data['label_set'] = label_set.facts
        write_results(
            config.output.results_path,
            {**data, 'compared': results, 'differences': [dataclasses.asdict(each) for each in differences]},
        )
    if config.output.report_dir:
        facts = [
            {
                'kind': result['kind'],
                'MB': f'{result["bytes"] / 1e6:.2f}',
                'images per second, net alone': f'{result["images_per_second"]:.0f}',
                'same class as the first': f'{result["agreement"]:.2%}',
                **views_in_report(options),
            }
            for result in results
        ]
        content = gather(subjects, outcomes, statistics, facts, dataset, strategy, label_set.first_subset)
        write_report(config.output.report_dir, content)
    return results


class _Timed:
    """Times a classifier; the first batch runs twice, because its first run compiles or allocates memory."""

    def __init__(self, subject: Subject, source: EvalSource):
        self._subject, self._source = subject, source
        self.preprocessing, self.output, self.temperature = subject.preprocessing, subject.output, subject.temperature
        self.images, self.seconds = 0, 0.0

    def score(self, images: Any) -> np.ndarray:
        if not self.images:
            self._source.gather(self._subject.score(images))
        start = time.monotonic()
        scores = self._source.gather(self._subject.score(images))
        self.seconds += time.monotonic() - start
        self.images += len(scores)
        return scores


def _table(paths: Sequence[str], results: Sequence[Results]) -> str:
    recalls = [name for name in results[0] if name.startswith('recall_at_')]
    heading = ('file', 'kind', 'MB', 'Accuracy', *(f'Recall_{name.removeprefix("recall_at_")}' for name in recalls))
    rows = [
        (
            path,
            result['kind'],
            f'{result["bytes"] / 1e6:.2f}',
            *(f'{result[name]:.2%}' for name in ('accuracy', *recalls)),
            f'{result["images_per_second"]:.0f}',
            f'{result["agreement"]:.2%}',
        )
        for path, result in zip(paths, results, strict=True)
    ]
    return format_table([(*heading, 'images/s', 'agreement'), *rows], numbers=True)


def _refuse_options_of_one(output: EvalOutputOptions, cluster: ClusterOptions) -> None:
    """Raises InputError for options that apply only to a single file."""
    given = {**dataclasses.asdict(output), **dataclasses.asdict(cluster)}
    of_one = (
        'fit_temperature',
        'eval_dir',
        'summarize_images',
        'eval_interval_secs',
        'max_number_of_evaluations',
        'eval_timeout_secs',
    )
    for name in (*of_one, 'worker_hosts', 'launch_workers'):
        if given[name]:
            raise InputError(
                f'--{name}={given[name]}: --compare evaluates each file once, in a single process; leave it out'
            )
