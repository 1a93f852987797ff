"""Measures speed: `python benchmark_image_classifier.py --mode=train --dataset_dir=...`.

Prints images per second, and per CPU-second, as a table; `--results_path` writes them as JSON. Accepts all flags of
training, and a recipe with `--flagfile=`; `--help` lists them. No train_dir is written.
"""

import os
import sys

from configs import cli, early
from configs.benchmark import BenchmarkConfig
from configs.retired_flags import RETIRED_TRAIN_FLAGS
from engine.distributed import launching, tasks

EXAMPLE = 'python benchmark_image_classifier.py --mode=step --model_name=alexnet_v2 --batch_size=32'
USUAL = ('mode', 'num_steps', 'warmup_steps', 'results_path', 'dataset_name', 'dataset_dir', 'model_name', 'batch_size')


def main(config: BenchmarkConfig) -> int:
    """Measures as `config` says; TensorFlow is imported only once the flags are known to be right."""
    is_worker = tasks.is_worker(config.cluster, os.environ)
    if not is_worker:  # the others would wait for a worker that ends here: it joins them, and says then what is wrong
        early.check_names(config)
        early.check_combinations(config)
        early.check_place('results_path', config.benchmark.results_path)
        early.check_dataset_dir(config.data.dataset_name, config.data.dataset_dir)
    if config.cluster.launch_workers:
        return launching.launch(config.cluster.launch_workers, sys.argv, os.environ)
    if is_worker:
        cli.silence_tensorflow()
    from engine.speed import benchmark

    benchmark.benchmark(config)
    return 0


if __name__ == '__main__':
    cli.run(BenchmarkConfig, main, RETIRED_TRAIN_FLAGS, usual=USUAL, example=EXAMPLE)
