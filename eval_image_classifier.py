"""Evaluates a checkpoint: `python eval_image_classifier.py --checkpoint_path=TRAIN_DIR`.

Prints Accuracy and Recall@k; `--results_path` writes them as JSON. `--checkpoint_path` may also be a SavedModel, or a
.tflite or .onnx file; `--compare=A,B,C` compares several in a table. The flags are slim's; `--help` lists them.
"""

import os
import sys

from configs import cli, early
from configs.evaluation import EvalConfig
from configs.retired_flags import RETIRED_EVAL_FLAGS
from engine.distributed import launching, tasks

EXAMPLE = 'python eval_image_classifier.py --checkpoint_path=/tmp/digits --results_path=/tmp/results.json'
USUAL = (
    'checkpoint_path',
    'dataset_name',
    'dataset_dir',
    'dataset_split_name',
    'batch_size',
    'results_path',
    'compare',
)


def main(config: EvalConfig) -> int:
    """Evaluates as `config` says; TensorFlow is imported only once the flags are known to be right."""
    is_worker = tasks.is_worker(config.cluster, os.environ)
    if not is_worker:  # the others would wait for a worker that ends here: it joins them, and says then what is wrong
        early.check_evaluation(config)
    if config.cluster.launch_workers and not config.evaluation.compare:  # which refuses workers
        return launching.launch(config.cluster.launch_workers, sys.argv, os.environ)
    if is_worker:
        cli.silence_tensorflow()
    from engine import evaluation

    if config.evaluation.compare:
        evaluation.compare(config)
    else:
        evaluation.evaluate(config)
    return 0


if __name__ == '__main__':
    cli.run(EvalConfig, main, RETIRED_EVAL_FLAGS, usual=USUAL, example=EXAMPLE)
