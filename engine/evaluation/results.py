"""Output of an evaluation: slim's lines, JSON, event files.

report(results, dataset.num_examples)
write_summaries(SummaryWriter(eval_dir(train_dir, 'test', averages=False)), results)
"""

import json
import math
import os
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
from absl import logging

from datasets.text_files import write_text
from engine.evaluation.measure import Results
from engine.evaluation.statistics import Difference, Statistics
from engine.evaluation.summaries import SummaryWriter
from support.errors import InputError, first_line
from support.tables import format_table

_CHARTED = ('mean_class_accuracy', 'precision_macro', 'recall_macro', 'f1_macro', 'ece')


def report(results: Results, num_examples: int) -> None:
    """Prints the metrics in slim's format, the loss if known, and the number of examples."""
    for name, value in results.items():
        if name == 'accuracy':
            print(f'eval/Accuracy[{value:.8g}]')
        elif name.startswith('recall_at_'):
            print(f'eval/Recall_{name.removeprefix("recall_at_")}[{value:.8g}]')
    if 'loss' in results:
        print(f'eval/Loss[{results["loss"]:.8g}]')
    print(f'evaluated {results["num_examples"]} of {num_examples}', flush=True)


def print_statistics(statistics: Statistics) -> None:
    """Prints the values, except micro and weighted averages, with their intervals."""
    rows = [('', 'value', '95 % interval')]
    for name, value in statistics.values.items():
        if name.endswith(('_micro', '_weighted')):  # micro averages equal accuracy
            continue
        show = '{:.4f}'.format if name in ('cross_entropy', 'ece') else '{:.2%}'.format
        low, high = statistics.intervals.get(name, (math.nan, math.nan))
        rows.append((name, show(value), '' if math.isnan(low) else f'{show(low)} to {show(high)}'))
    print(format_table(rows, numbers=True), flush=True)
    if statistics.num_not_finite:
        logging.warning(
            '%d of %d examples have scores that are not finite: they count as wrong in Recall@k, and cross_entropy '
            'and ece are undefined',
            *(statistics.num_not_finite, statistics.num_examples),
        )


def print_temperature(fitted: Results) -> None:
    """Prints a fitted temperature, and what it changes on the examples that it was fitted to."""
    print(
        f'temperature {fitted["temperature"]:.6g}, fitted to {fitted["num_examples"]} examples of '
        f'{fitted["dataset_name"]}, split {fitted["dataset_split_name"]}, and stored for {fitted["checkpoint"]}'
    )
    rows = [
        (name, *(f'{fitted[f"{name}_{when}"]:.4f}' for when in ('before', 'after')))
        for name in ('cross_entropy', 'ece')
    ]
    print(format_table([('', 'before', 'after'), *rows], numbers=True), flush=True)


def print_differences(differences: Sequence[Difference]) -> None:
    """Prints McNemar's tests of pairs of classifiers as a table."""
    heading = ('first', 'second', 'only first right', 'only second right', "McNemar's p")
    rows = [
        (each.first, each.second, str(each.only_first), str(each.only_second), f'{each.p_value:.3g}')
        for each in differences
    ]
    if rows:
        print(format_table([heading, *rows], numbers=True), flush=True)


def make_report_dir(folder: str | None) -> None:
    """Makes the folder of a report before the evaluation, so that nothing is lost if it cannot be made.

    Raises:
        InputError: the folder cannot be made.
    """
    if folder is None:
        return
    try:
        tf.io.gfile.makedirs(folder)
    except (OSError, tf.errors.OpError) as error:
        raise InputError(f'--report_dir={folder}: {first_line(error)}') from error


def write_results(path: str, results: Results) -> None:
    """Writes results as JSON, atomically; non-finite numbers become null.

    Raises:
        InputError: the file cannot be written.
    """
    try:
        # One line for each key: a confusion matrix has a number of cells.
        lines = [f' {json.dumps(key)}: {json.dumps(value)}' for key, value in _finite(results).items()]
        write_text(path, '{\n' + ',\n'.join(lines) + '\n}\n')
    except (OSError, tf.errors.OpError) as error:
        raise InputError(f'--results_path={path}: {first_line(error)}') from error


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def eval_dir(train_dir: str, split: str, averages: bool, has_views: bool = False) -> str:
    """Returns the folder for an evaluation's event files; moving averages and several views have separate ones."""
    name = split.replace('%', 'pct').replace(':', '-').replace('[', '_').replace(']', '')
    return os.path.join(train_dir, f'eval_{name}{"_averages" * averages}{"_views" * has_views}')


def write_summaries(writer: SummaryWriter, results: Results, statistics: Statistics) -> None:
    """Writes results for TensorBoard: accuracy, recall_at_<k>, loss, num_examples, step, and the checkpoint's path.

    And of the statistics mean_class_accuracy, ece and the macro averages.

    The loss has the same tag as in training, so that both appear in one chart.
    """
    step = max(int(results['step']), 0)
    measured = {name: float(value) for name, value in results.items() if name.startswith(('accuracy', 'recall_at_'))}
    if 'loss' in results:
        measured['losses/cross_entropy'] = float(results['loss'])
    measured |= {name: statistics.values[name] for name in _CHARTED}
    writer.scalars(step, {**measured, 'num_examples': float(results['num_examples']), 'step': float(step)})
    if results['checkpoint_path']:
        writer.text(step, 'checkpoint_path', str(results['checkpoint_path']))
    writer.flush()
