"""The contestant of this project: training steps, host stage, both, or evaluation.

    PYTHONPATH=. python benchmarks/with_engine.py step --options='{"batch_size": 32}'

Options are those of `benchmark_image_classifier.py`.
"""

import functools
from typing import Any

from contestant import Turn, imports, repeated, serve

from configs.benchmark import BenchmarkConfig
from configs.options import make_config
from support import library

library.load_lightly()

from engine.speed import benchmark  # noqa: E402


def measured(mode: str, **options: Any) -> Turn:
    """Returns the turn function of a benchmark mode; in evaluation a unit is a whole pass."""
    work = benchmark.make_work(make_config(BenchmarkConfig, mode=mode, **options))
    if mode == 'eval':
        return repeated(lambda: work(2))  # any number above 1 runs a pass
    return lambda count: work(count).waited


if __name__ == '__main__':
    modes = {mode: functools.partial(measured, mode) for mode in ('eval', 'input', 'step', 'train')}
    serve(__doc__, {**modes, 'imports': imports})
