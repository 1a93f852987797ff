"""`python -m engine.evaluation.report ROWS`: metrics and report of an evaluation, from its rows alone."""

import argparse
import dataclasses
import os
import sys
from typing import Any

from configs import cli
from configs.early import check_apart, check_folder_place, check_place
from engine.evaluation.report.content import Content, Subject
from engine.evaluation.report.page import write_report
from engine.evaluation.results import make_report_dir, print_differences, print_statistics, write_results
from engine.evaluation.saved_rows import SavedRows, read_rows
from engine.evaluation.statistics import Difference, Statistics, compare_pairs, compute
from support.errors import InputError


def report(
    path: str, recall_at: tuple[int, ...], results_path: str | None = None, report_dir: str | None = None
) -> None:
    """Prints the statistics of a file of rows, and writes them as JSON and as a report.

    Args:
        path: A file that `--predictions_path` wrote.
        recall_at: Values of k.
        results_path: The JSON file, if one is wanted.
        report_dir: The report's folder, if one is wanted.

    Raises:
        InputError: a file cannot be read or written.
    """
    check_place('results_path', results_path, report_dir)
    check_folder_place('report_dir', report_dir)
    check_apart({'ROWS': path, '--results_path': results_path}, report_dir)
    files = read_rows(path)
    make_report_dir(report_dir)
    is_comparison = len(files) > 1 and _aligned(files)
    results, statistics = [], []
    for each in files:
        statistics.append(compute(each.outcomes, recall_at))
        print(f'{each.path or path}: {statistics[-1].num_examples} examples')
        print_statistics(statistics[-1])
        names = tuple(each.label_names.get(i, '') for i in range(1 + max(each.label_names)))
        results.append({'path': each.path, 'num_examples': len(each.ids), **statistics[-1].to_json(names)})
    paths, outcomes = [each.path for each in files], [each.outcomes for each in files]
    differences = compare_pairs(paths, outcomes) if is_comparison else []
    print_differences(differences)
    if results_path:
        whole: dict[str, Any] = results[0]
        if is_comparison:
            whole = {'compared': results, 'differences': [dataclasses.asdict(each) for each in differences]}
        write_results(results_path, whole)
    if report_dir:
        write_report(report_dir, _content(path, files, statistics, differences))


def _content(path: str, files: list[SavedRows], statistics: list[Statistics], differences: list[Difference]) -> Content:
    names = {index: name for each in files for index, name in each.label_names.items()}
    return Content(
        title=os.path.basename(path),
        subjects=[
            Subject(each.path or path, {}, each.outcomes, of_file)
            for each, of_file in zip(files, statistics, strict=True)
        ],
        example_ids=files[0].ids,
        label_names=[names.get(index, '') for index in range(1 + max(names))],
        differences=differences,
    )


def _aligned(files: list[SavedRows]) -> bool:
    """Returns True; raises InputError if the files have rows of different examples."""
    for other in files[1:]:
        if other.ids != files[0].ids:
            raise InputError(f'the rows of {files[0].path!r} and {other.path!r} are of different examples')
    return True


def main(arguments: list[str] | None = None) -> int:
    """Runs the command and returns its exit status: 0, or 1 if a file cannot be read or written."""
    parser = argparse.ArgumentParser(prog='python -m engine.evaluation.report', description=__doc__)
    parser.add_argument(
        'rows', type=os.path.expanduser, help='file that --predictions_path wrote: .csv, .jsonl or .parquet'
    )
    parser.add_argument('--recall_at', default='5', help='values of k for Recall@k, separated by commas (default: 5)')
    parser.add_argument('--results_path', type=os.path.expanduser, help='JSON file for the results')
    parser.add_argument('--report_dir', type=os.path.expanduser, help='folder for report.html, its PNG and CSV files')
    options = parser.parse_args(arguments)
    try:
        recall_at = tuple(int(k) for k in options.recall_at.split(','))
    except ValueError:
        recall_at = (0,)
    if min(recall_at) < 1:
        parser.error(f'--recall_at={options.recall_at}: give whole numbers from 1, separated by commas')

    def call() -> int:
        report(options.rows, recall_at, options.results_path, options.report_dir)
        return 0

    return cli.exit_status(call)


if __name__ == '__main__':
    sys.exit(main())
