"""Evaluation: every example of a split exactly once, Accuracy and Recall@k.

    results = evaluate(make_config(EvalConfig, checkpoint_path='/tmp/tfmodel'))

`measure` computes the metrics; this module opens checkpoints and data, and writes the results.
"""

import os
from collections.abc import Iterator

import tensorflow as tf
from absl import logging

from configs.evaluation import EvalConfig, EvalOutputOptions
from engine import checkpoints
from engine.distributed import distribution, joining
from engine.distributed.cluster import Cluster
from engine.distributed.kernels import set_precision
from engine.evaluation import results as outputs
from engine.evaluation.calibration import check_storable, fit_and_store, keep_logits
from engine.evaluation.dataset import find_dataset
from engine.evaluation.health import Health
from engine.evaluation.label_sets import open_label_set
from engine.evaluation.measure import EvalSource, Results, Subject, measure
from engine.evaluation.metrics import clip_recall_at
from engine.evaluation.outcomes import Collector, Outcomes
from engine.evaluation.report.gathering import gather
from engine.evaluation.report.page import write_report
from engine.evaluation.rows import open_rows
from engine.evaluation.statistics import Statistics, compute
from engine.evaluation.subject import CheckpointSubject, is_file, open_subject
from engine.evaluation.summaries import SummaryWriter
from engine.evaluation.views import describe_views, views_in_report, with_views
from engine.evaluation.visuals import Visuals
from support.errors import InputError, first_line


def evaluate(config: EvalConfig) -> Results:
    """Evaluates a checkpoint, an exported file, or each new checkpoint of a folder, as `eval_image_classifier.py` does.

    With several workers, only the chief reads checkpoints and writes results.

    Returns:
        The results of the last evaluation: accuracy, recall_at_<k>, loss (if the net gives logits), num_examples,
        images_per_second, step, checkpoint_path, temperature, names of the net and the data set, eval_crops and
        eval_scales (if there are several views), and `Statistics.to_json`; with `--fit_temperature` also
        fitted_temperature, a `FittedTemperature` as a dict.

    Raises:
        InputError: an error that the user can fix; nothing is written.
    """
    with joining.join_cluster(config) as cluster:
        path, output = config.evaluation.checkpoint_path, config.output
        cluster.on_chief(lambda: outputs.make_report_dir(output.report_dir))
        waits = output.eval_interval_secs is not None
        strategy = distribution.make_strategy(config.devices, cluster)
        set_precision(config.net.mixed_precision, strategy)
        evaluation: _Evaluation | None = None
        results: Results | None = None
        damage: checkpoints.DamagedCheckpointError | None = None
        done, found = 0, _paths(path, output, cluster.count)
        while (each := cluster.on_chief(lambda: next(found, None))) is not None:
            try:
                if evaluation is None:
                    evaluation = _Evaluation(each, config, strategy, cluster)
                else:
                    evaluation.restore(each)
            except checkpoints.DamagedCheckpointError as error:
                damage = error
                if cluster.is_chief:
                    _warn_of_damage(each, error, path, waits)
                continue
            results = evaluation.run()
            done += 1
            if done == (output.max_number_of_evaluations if waits else 1):
                break
        if results is None:
            raise damage or InputError(f'--checkpoint_path={path}: no checkpoint appeared')
        return results


def _warn_of_damage(prefix: str, error: checkpoints.DamagedCheckpointError, path: str, waits: bool) -> None:
    if waits and not tf.io.gfile.exists(f'{prefix}.index'):
        logging.warning('%s was deleted before it was read; waiting for the next one', prefix)
    elif tf.io.gfile.isdir(path):
        logging.warning('%s; %s', error, 'waiting for the next one' if waits else 'trying the one before it')


def _paths(path: str, output: EvalOutputOptions, num_workers: int) -> Iterator[str]:
    """Yields paths to evaluate: an exported file, a checkpoint, a folder's checkpoints from the latest, or new ones."""
    if is_file(path):
        if num_workers > 1:
            raise InputError(f'--checkpoint_path={path}: only a single process can run this file')
        if output.eval_interval_secs is not None:
            raise InputError(f'--checkpoint_path={path}: new checkpoints cannot appear there; name a folder')
        yield path
    elif output.eval_interval_secs is None:
        first = checkpoints.find_checkpoint(path)
        yield first
        if tf.io.gfile.isdir(path):
            yield from (other for other in checkpoints.newest_first(path) if other != first)
    else:
        if not tf.io.gfile.isdir(path) and (tf.io.gfile.exists(f'{path}.index') or tf.io.gfile.exists(path)):
            raise InputError(f'--checkpoint_path={path}: to wait for new checkpoints, name their folder')
        yield from checkpoints.new_checkpoints(path, output.eval_interval_secs, output.eval_timeout_secs)


class _Evaluation:
    """The net, the data and the outputs of one call of the script."""

    def __init__(self, path: str, config: EvalConfig, strategy: tf.distribute.Strategy, cluster: Cluster):
        options, output = config.evaluation, config.output
        self._config, self._cluster = config, cluster
        self._subject = subject = open_subject(path, config, strategy, cluster)
        dataset = find_dataset(options, config.net, subject.path, subject.spec, cluster)
        cluster.check_same({'examples': dataset.identity()})
        self._viewed = with_views(subject, options, strategy)
        self._source = EvalSource(
            dataset,
            strategy,
            batch_size=options.batch_size,
            max_batches=options.max_num_batches,
            cluster=cluster,
        )
        self._label_set = open_label_set(options, self._source, [subject], force=config.net.force)
        self._recall_at = clip_recall_at(options.recall_at, self._label_set.dataset.num_classes, warn=True)
        self._averages, self._views = bool(options.moving_average_decay), describe_views(options)
        folder, split = os.path.dirname(subject.path), dataset.split + self._label_set.suffix
        # A run's own preprocessing is known. Variants run in a single process.
        has_variants = (config.net.force or not subject.spec.dataset_name) and cluster.count == 1
        self._health = Health(self._source, subject.variants if has_variants else dict)
        if output.fit_temperature:
            if self._views or self._label_set.facts:
                raise InputError(
                    '--fit_temperature: takes the logits of one view and of all classes; leave out --eval_crops, '
                    '--eval_scales, --class_map and --real_labels'
                )
            cluster.on_chief(lambda: check_storable(subject.path))
        self._writer = SummaryWriter(
            output.eval_dir or outputs.eval_dir(folder, split, self._averages, bool(self._views)),
            required=output.eval_dir is not None,
        )

    def restore(self, prefix: str) -> None:
        """Restores another checkpoint of the same run."""
        assert isinstance(self._subject, CheckpointSubject)  # only a run has several
        self._subject.restore(prefix)

    def run(self) -> Results:
        """Evaluates the current weights, prints the results, and writes JSON and event files."""
        subject, label_set = self._subject, self._label_set
        dataset = label_set.dataset
        logging.info('Evaluating %s on %s, split %s', subject.path, dataset.name, dataset.split)
        output = self._config.output if self._cluster.is_chief else EvalOutputOptions()
        collector = Collector()
        # Averages over views and other label sets are not what the net was trained for.
        is_plain = not (self._views or label_set.facts)
        watched = [self._health.watch(subject)] if is_plain else []
        subjects: list[Subject] = [*watched] or [self._viewed]
        visuals = Visuals(dataset, subject.preprocessing) if output.summarize_images else None
        with open_rows(output, dataset, [subject]) as observers, keep_logits(output.fit_temperature) as kept:
            observers = [*watched, collector, *observers, *kept, *([] if visuals is None else [visuals.curves])]
            (measured,) = measure(subjects, self._source, self._recall_at, observers, relabel=label_set.relabel)
            outcomes = collector.outcomes()
            fitted = None
            if self._config.output.fit_temperature:
                assert isinstance(subject, CheckpointSubject)  # files are refused
                fitted = self._cluster.on_chief(
                    lambda: fit_and_store(kept[0], outcomes, subject, dataset, self._averages)
                )
        statistics = compute(outcomes, self._recall_at)
        results = {
            **measured,
            'step': subject.step,
            'checkpoint_path': subject.path,
            'kind': subject.kind,
            'model_name': subject.spec.model_name,
            'dataset_name': dataset.name,
            'dataset_split_name': dataset.split,
            'moving_averages': self._averages,
            **({'label_set': label_set.facts} if label_set.facts else {}),
            **self._views,
            'temperature': subject.temperature,
            **({} if fitted is None else {'fitted_temperature': fitted}),
            **statistics.to_json(dataset.label_names),
        }
        if self._cluster.is_chief:
            outputs.report(results, dataset.num_examples)
            outputs.print_statistics(statistics)
            if fitted is not None:
                outputs.print_temperature(fitted)
            self._write(results, outcomes, statistics, visuals)
            if output.report_dir:
                self._write_report(output.report_dir, results, outcomes, statistics)
        for each in watched:
            self._health.report(each, results, subject.path, step=subject.step, images_seen=subject.images_seen)
        return results

    def _write_report(self, folder: str, results: Results, outcomes: Outcomes, statistics: Statistics) -> None:
        facts = {'kind': str(results['kind']), 'images per second': f'{results["images_per_second"]:.0f}'}
        if results['step'] >= 0:
            facts['step'] = f'{results["step"]:,}'
        facts |= views_in_report(self._config.evaluation)
        dataset, subset = self._label_set.dataset, self._label_set.first_subset
        strategy = self._source.strategy
        content = gather([self._subject], [outcomes], [statistics], [facts], dataset, strategy, subset)
        write_report(folder, content)

    def _write(self, results: Results, outcomes: Outcomes, statistics: Statistics, visuals: Visuals | None) -> None:
        output = self._config.output
        if output.results_path:
            outputs.write_results(output.results_path, results)
        try:
            if visuals is not None:
                visuals.write(self._writer, max(self._subject.step, 0), outcomes, statistics)
            outputs.write_summaries(self._writer, results, statistics)
        except (OSError, tf.errors.OpError) as error:
            raise InputError(f'--eval_dir={output.eval_dir}: {first_line(error)}') from error
