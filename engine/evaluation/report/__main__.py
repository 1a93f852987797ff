"""`python -m engine.evaluation.report ROWS`: computes the statistics of an evaluation again, from its rows alone."""

import argparse
import dataclasses
import sys
from typing import Any

from configs import cli
from engine.evaluation.results import print_differences, print_statistics, write_results
from engine.evaluation.saved_rows import SavedRows, read_rows
from engine.evaluation.statistics import compare_pairs, compute
from support.errors import InputError


def report(path: str, recall_at: tuple[int, ...], results_path: str | None = None) -> None:
    """Prints the statistics of a file of rows, and writes them as JSON.

    Args:
        path: A file that `--predictions_path` wrote.
        recall_at: Values of k.
        results_path: The JSON file, if one is wanted.

    Raises:
        InputError: a file cannot be read or written.
    """
    files = read_rows(path)
    results = []
    for each in files:
        statistics = compute(each.outcomes, recall_at)
        print(f'{each.path or path}: {statistics.num_examples} examples')
        print_statistics(statistics)
        names = tuple(each.label_names.get(i, '') for i in range(1 + max(each.label_names)))
        results.append({'path': each.path, 'num_examples': statistics.num_examples, **statistics.to_json(names)})
    differences = (
        compare_pairs([each.path for each in files], [each.outcomes for each in files]) if _aligned(files) else []
    )
    print_differences(differences)
    if results_path:
        whole: dict[str, Any] = results[0]
        if len(results) > 1:
            whole = {'compared': results, 'differences': [dataclasses.asdict(each) for each in differences]}
        write_results(results_path, whole)


def _aligned(files: list[SavedRows]) -> bool:
    """Returns whether all files have rows of the same examples; raises InputError if only some have."""
    for other in files[1:]:
        if other.ids != files[0].ids:
            raise InputError(f'{files[0].path} and {other.path} have rows of different examples')
    return True


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit status: 0, or 1 if a file cannot be read or written."""
    parser = argparse.ArgumentParser(prog='python -m engine.evaluation.report', description=__doc__)
    parser.add_argument('rows', help='file that --predictions_path wrote: .csv, .jsonl or .parquet')
    parser.add_argument('--recall_at', default='5', help='values of k for Recall@k, separated by commas (default: 5)')
    parser.add_argument('--results_path', help='JSON file for the results')
    options = parser.parse_args(arguments)
    try:
        recall_at = tuple(int(k) for k in options.recall_at.split(','))
    except ValueError:
        recall_at = (0,)
    if min(recall_at) < 1:
        parser.error(f'--recall_at={options.recall_at}: give whole numbers from 1, separated by commas')

    def call() -> int:
        report(options.rows, recall_at, options.results_path)
        return 0

    return cli.exit_status(call)


if __name__ == '__main__':
    sys.exit(main())
