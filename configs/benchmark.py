"""The options of `benchmark_image_classifier.py`: its own and all of training's, so that any recipe can be measured.

    make_config(BenchmarkConfig, mode='input', dataset_dir='/data/imagenet', batch_size=256)

Options for checkpoints, logs and evaluation during training have no effect: a benchmark writes no train_dir.
"""

import dataclasses

from configs.options import Options, option
from configs.training import TrainConfig
from support.errors import InputError


@dataclasses.dataclass(frozen=True)
class BenchmarkOptions(Options):
    """Measurement."""

    mode: str = option(
        'train',
        'input: the input pipeline on the host alone; step: preprocessing on the device, forward and backward pass '
        'and update, on synthetic data; train: both; eval: a pass over the evaluation data.',
        choices=('input', 'step', 'train', 'eval'),
    )
    num_steps: int = option(100, 'Batches to measure, rounded up to whole blocks of a tenth.', lower=1, upper=10**9)
    warmup_steps: int = option(10, 'Batches to run before measuring; the first one compiles.', lower=1, upper=10**9)
    results_path: str | None = option(None, 'JSON file for the results.', path=True)


@dataclasses.dataclass(frozen=True)
class BenchmarkConfig(TrainConfig):
    """All that `engine.speed.benchmark.benchmark` depends on."""

    benchmark: BenchmarkOptions = BenchmarkOptions()

    def __post_init__(self) -> None:
        if self.plan.plan:
            raise InputError('--plan: only train_image_classifier.py supports it; leave it out')
        if self.log.summary:
            raise InputError('--summary: only train_image_classifier.py supports it; leave it out')
