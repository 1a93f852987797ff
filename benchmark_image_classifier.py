"""Measures speed: `python benchmark_image_classifier.py --mode=train --dataset_dir=...`.

Prints images a second, and a CPU-second, as a table; `--results_path` writes them as JSON. All flags of training are
taken, `--flagfile=` of a recipe too; `--help` lists them. Nothing is written to a train_dir.
"""

import os
import sys

from configs import cli, early
from configs.benchmark import BenchmarkConfig
from configs.retired_flags import RETIRED_TRAIN_FLAGS
from engine.cluster import launching, tasks


def main(config: BenchmarkConfig) -> int:
    """Measures as `config` says; TensorFlow is imported only once the flags are known to be right."""
    launches = bool(config.cluster.launch_workers)
    # A lost worker is named, and is no error here.
    is_worker = not launches and tasks.find_task(config.cluster, os.environ) is not None
    if not is_worker:  # what is wrong with a worker, the others have to hear
        early.check_names(config)
        early.check_dataset_dir(config.data.dataset_name, config.data.dataset_dir)
    if launches:
        return launching.launch(config.cluster.launch_workers, sys.argv, os.environ)
    with cli.quiet_import(silent=is_worker):
        from engine import benchmark

    benchmark.measure(config)
    return 0


if __name__ == '__main__':
    cli.run(BenchmarkConfig, main, RETIRED_TRAIN_FLAGS)
