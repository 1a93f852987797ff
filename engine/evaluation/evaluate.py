"""Evaluation: every example of a split exactly once, Accuracy and Recall@k.

    results = evaluate(make_config(EvalConfig, checkpoint_path='/tmp/tfmodel'))

`engine.evaluation.evaluator` counts; here is what it counts with, and where the results go.
"""

import math
import os
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf
from absl import logging

from configs.evaluation import EvalConfig, EvalNetOptions, EvalOutputOptions
from configs.training import NetOptions
from datasets.dataset_factory import Dataset
from engine import checkpoints
from engine.classifiers.checkpoint import with_labels_offset
from engine.classifiers.loading import find_runtime
from engine.classifiers.model_spec import ModelSpec
from engine.distributed import distribution, joining
from engine.distributed.cluster import Cluster
from engine.distributed.kernels import set_precision
from engine.evaluation import comparison
from engine.evaluation.evaluated_split import evaluated_split
from engine.evaluation.evaluator import Evaluator, Results
from engine.evaluation.summaries import SummaryWriter
from engine.optim.moving_averages import ExponentialMovingAverage
from engine.optim.reduction import broadcast
from nets.layers import zero_weights
from nets.variables import slim_variables
from support.errors import InputError, first_line


def report(results: Results, num_examples: int) -> None:
    """Prints the metrics as slim does, the loss where it is known, and how many examples they count."""
    for name, value in results.items():
        if name == 'accuracy':
            print(f'eval/Accuracy[{value:.8g}]')
        elif name.startswith('recall_at_'):
            print(f'eval/Recall_{name.removeprefix("recall_at_")}[{value:.8g}]')
    if 'loss' in results:
        print(f'eval/Loss[{results["loss"]:.8g}]')
    print(f'evaluated {results["num_examples"]} of {num_examples}', flush=True)


def evaluate(config: EvalConfig) -> Results:
    """Evaluates a checkpoint, or every new one of a folder, as `eval_image_classifier.py` does.

    Of several workers the chief alone reads checkpoints and writes results.

    Returns:
        The results of the last evaluation: accuracy, recall_at_<k>, loss (of checkpoints), num_examples,
        images_per_second, step, checkpoint_path, and what was evaluated.

    Raises:
        InputError: whatever the user can put right; nothing is written then.
    """
    with joining.join_cluster(config) as cluster:
        if find_runtime(config.evaluation.checkpoint_path) is not None:
            return _evaluate_file(config, cluster)
        return _evaluate(config, cluster)


def _evaluate(config: EvalConfig, cluster: Cluster) -> Results:
    path, waits = config.evaluation.checkpoint_path, config.output.eval_interval_secs is not None
    strategy = distribution.make_strategy(config.devices, cluster)
    set_precision(config.net.mixed_precision, strategy)
    results: Results | None = None
    evaluation: _CheckpointEvaluation | None = None
    damage: checkpoints.DamagedCheckpointError | None = None
    done = 0
    found = _checkpoints(path, config.output) if cluster.is_chief else iter(())
    while (prefix := cluster.on_chief(lambda: next(found, None))) is not None:
        try:
            evaluation = evaluation or _CheckpointEvaluation(config, prefix, strategy, cluster)
            results = evaluation.run(prefix)
        except checkpoints.DamagedCheckpointError as error:
            damage = error
            if not cluster.is_chief:
                continue
            if waits and not tf.io.gfile.exists(f'{prefix}.index'):
                logging.warning('%s was deleted before it was read; waiting for the next one', prefix)
            elif tf.io.gfile.isdir(path):
                logging.warning('%s; %s', error, 'waiting for the next one' if waits else 'trying the one before it')
            continue
        done += 1
        if done == (config.output.max_number_of_evaluations if waits else 1):
            break
    if results is None:
        raise damage or InputError(f'--checkpoint_path={path}: no checkpoint came')
    return results


def _evaluate_file(config: EvalConfig, cluster: Cluster) -> Results:
    """Evaluates what another program than TensorFlow's training runs: a `.tflite` or `.onnx` file, or a SavedModel."""
    options = config.evaluation
    if cluster.count > 1:
        raise InputError(f'--checkpoint_path={options.checkpoint_path}: one process alone runs such a file')
    if config.output.eval_interval_secs is not None:
        raise InputError(f'--checkpoint_path={options.checkpoint_path}: no new checkpoints come there; name a folder')
    classifier = comparison.open_classifier(config, options.checkpoint_path)
    dataset = comparison.find_dataset(config, classifier)
    comparison.check_classes(classifier, dataset, config.net.force)
    logging.info('Evaluating %s on %s, split %s', classifier.path, dataset.name, dataset.split)
    (measured,) = comparison.measure(
        [classifier], dataset, options.batch_size, options.recall_at, options.max_num_batches
    )
    results = {
        **{name: value for name, value in measured.items() if name not in ('path', 'agreement')},
        'checkpoint_path': classifier.path,
        'kind': classifier.kind,
        'model_name': classifier.spec.model_name,
        'dataset_name': dataset.name,
        'dataset_split_name': dataset.split,
    }
    report(results, dataset.num_examples)
    folder = os.path.dirname(os.path.abspath(classifier.path))
    folder = config.output.eval_dir or eval_dir(folder, dataset.split, averages=False)
    _write(config.output, results, SummaryWriter(folder, required=config.output.eval_dir is not None))
    return results


def _read_on_chief(cluster: Cluster, read: Callable[[], Any]) -> Any:
    """Returns in all workers what the chief reads of a checkpoint.

    Raises:
        DamagedCheckpointError: it is damaged; in all workers, which go on together with another one.
    """

    def read_or_damage() -> dict[str, Any]:
        try:
            return {'read': read()}
        except checkpoints.DamagedCheckpointError as error:
            return {'damage': str(error)}

    result = cluster.on_chief(read_or_damage)
    if 'damage' in result:
        raise checkpoints.DamagedCheckpointError(result['damage'])
    return result['read']


def _checkpoints(path: str, output: EvalOutputOptions) -> Iterator[str]:
    """Yields the checkpoints to evaluate: the one named, those of a folder until one can be read, or each new one."""
    if output.eval_interval_secs is None:
        first = checkpoints.find_checkpoint(path)
        yield first
        if tf.io.gfile.isdir(path):
            yield from (other for other in checkpoints.newest_first(path) if other != first)
        return
    if not tf.io.gfile.isdir(path) and (tf.io.gfile.exists(f'{path}.index') or tf.io.gfile.exists(path)):
        raise InputError(f'--checkpoint_path={path}: to wait for new checkpoints, name the folder that they come in')
    yield from checkpoints.new_checkpoints(path, output.eval_interval_secs, output.eval_timeout_secs)


class _CheckpointEvaluation:
    """The net, the data and the outputs of one call of the script."""

    def __init__(self, config: EvalConfig, prefix: str, strategy: tf.distribute.Strategy, cluster: Cluster):
        options = config.evaluation
        folder = os.path.dirname(prefix)
        trained = ModelSpec.from_json(_read_on_chief(cluster, lambda: ModelSpec.to_json_of(prefix)))
        self._config, self._strategy, self._cluster = config, strategy, cluster
        self._dataset = _find_dataset(config, trained, folder, cluster)
        self._spec = _resolve_spec(config.net, trained, self._dataset)
        cluster.check_same({'examples': self._dataset.identity()})
        self._averages = bool(options.moving_average_decay)
        self._writer = SummaryWriter(
            config.output.eval_dir or eval_dir(folder, self._dataset.split, self._averages),
            required=config.output.eval_dir is not None,
        )
        with strategy.scope(), zero_weights():
            self._model = self._spec.make_model(mixed_precision=config.net.mixed_precision)
        self._evaluator = Evaluator(
            self._model,
            self._dataset,
            self._spec.make_preprocessing(),
            strategy,
            batch_size=options.batch_size,
            recall_at=options.recall_at,
            max_batches=options.max_num_batches,
            xla=distribution.use_xla(config.devices, strategy),
            fast_convolutions=distribution.use_fast_convolutions(config.devices, strategy),
            cluster=cluster,
        )

    def run(self, prefix: str) -> Results:
        """Evaluates one checkpoint, prints, and writes JSON and event files."""
        logging.info('Evaluating %s on %s, split %s', prefix, self._dataset.name, self._dataset.split)
        step = _read_on_chief(self._cluster, lambda: self._restore(prefix))
        if self._cluster.count > 1:
            weights = [variable.value for variable in slim_variables(self._model).values()]
            with distribution.naming_lost_workers(self._cluster):
                broadcast(self._strategy, weights)
        measured = self._evaluator()
        results = {
            **measured,
            'step': step,
            'checkpoint_path': prefix,
            'model_name': self._spec.model_name,
            'dataset_name': self._dataset.name,
            'dataset_split_name': self._dataset.split,
            'moving_averages': self._averages,
        }
        if self._cluster.is_chief:
            report(results, self._dataset.num_examples)
            _write(self._config.output, results, self._writer)
        return results

    def _restore(self, prefix: str) -> int:
        """Takes the weights, or their averages, from a checkpoint; returns its step."""
        suffix = ExponentialMovingAverage.SUFFIX if self._averages else ''
        variables = slim_variables(self._model)
        values = {name + suffix: variable.value for name, variable in variables.items()}
        offset, scope = self._dataset.labels_offset, self._config.foreign.checkpoint_scope
        checkpoints.restore(prefix, values, unused=variables, labels_offset=offset, scope=scope)
        return checkpoints.read_int(prefix, checkpoints.STEP_KEY, checkpoints.checkpoint_step(prefix))


def _write(output: EvalOutputOptions, results: Results, writer: SummaryWriter) -> None:
    """Writes what was measured: JSON where it was asked for, and an event file."""
    if output.results_path:
        comparison.write_results(output.results_path, {name: _finite(value) for name, value in results.items()})
    try:
        write_summaries(writer, results)
    except (OSError, tf.errors.OpError) as error:
        raise InputError(f'--eval_dir={output.eval_dir}: {first_line(error)}') from error


def _finite(value: float | int | str) -> float | int | str | None:
    """Returns None for the loss of weights that have gone astray: JSON has no infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def eval_dir(train_dir: str, split: str, averages: bool) -> str:
    """Returns where an evaluation's event files go; those of the moving averages are a run of their own."""
    name = split.replace('%', 'pct').replace(':', '-').replace('[', '_').replace(']', '')
    return os.path.join(train_dir, f'eval_{name}_averages' if averages else f'eval_{name}')


def write_summaries(writer: SummaryWriter, results: Results) -> None:
    """Writes what was measured for TensorBoard: accuracy, recall_at_<k>, num_examples, step, and the checkpoint.

    The loss has the tag that it has in training, so that both stand in one chart.
    """
    step = max(int(results['step']), 0)
    measured = {name: float(value) for name, value in results.items() if name.startswith(('accuracy', 'recall_at_'))}
    if 'loss' in results:
        measured['losses/cross_entropy'] = float(results['loss'])
    writer.scalars(step, {**measured, 'num_examples': float(results['num_examples']), 'step': float(step)})
    if results['checkpoint_path']:
        writer.text(step, 'checkpoint_path', str(results['checkpoint_path']))
    writer.flush()


def _find_dataset(config: EvalConfig, trained: ModelSpec | None, folder: str, cluster: Cluster) -> Dataset:
    options = config.evaluation
    offset = config.net.labels_offset
    if offset is None:
        offset = trained.labels_offset if trained else 0
    name, data_dir, _ = comparison.locate_dataset(options, trained)
    split = options.dataset_split_name
    if split is None:
        split = cluster.on_chief(lambda: evaluated_split(folder, name, data_dir))
    return comparison.open_dataset(config, trained, split, offset)


def _channels_of_run(flags: EvalNetOptions, trained: ModelSpec | None) -> int | None:
    """Returns 3 where the run has made three channels, of gray images too; None leaves it to the data set."""
    return 3 if trained is not None and trained.channels == 3 and not flags.use_grayscale else None


def _resolve_spec(flags: EvalNetOptions, trained: ModelSpec | None, dataset: Dataset) -> ModelSpec:
    """Returns the net and preprocessing to evaluate: those of model.json; flags may differ from it only with --force.

    Raises:
        InputError: a flag, or the data set's classes, contradict model.json.
    """

    def choose(flag: Any, of_run: str, default: Any = None) -> Any:
        if flag is not None:
            return flag
        return getattr(trained, of_run) if trained is not None else default

    asked = ModelSpec.for_dataset(
        dataset,
        choose(flags.model_name, 'model_name', NetOptions().model_name),
        preprocessing_name=choose(flags.preprocessing_name, 'preprocessing_name'),
        image_size=choose(flags.eval_image_size, 'image_size'),
        depth_multiplier=choose(flags.depth_multiplier, 'depth_multiplier', 1.0),
        use_grayscale=choose(flags.use_grayscale, 'use_grayscale', False),
        global_pool=choose(flags.global_pool, 'global_pool', False),
        channels=flags.channels or _channels_of_run(flags, trained),
    )
    if trained is not None:
        trained = with_labels_offset(trained, dataset.labels_offset)
    contradictions = trained.contradictions(asked) if trained is not None else []
    if contradictions and not flags.force:
        raise InputError(
            f'flags or data set contradict how the net was trained (model.json, now): {"; ".join(contradictions)}; '
            'leave the flags out, choose another data set, or give --force'
        )
    return asked
