"""The contestant of this project: training steps, host stage, both, or evaluation.

    PYTHONPATH=. python benchmarks/with_engine.py step --options='{"batch_size": 32}'

Options are those of `benchmark_image_classifier.py`. `imports` does no more than that.
"""

from contestant import parse_options, serve_turns

from configs.benchmark import BenchmarkConfig
from configs.options import make_config
from support import library

library.load_lightly()

from engine.speed import benchmark  # noqa: E402
from engine.speed.benchmark_figures import Block  # noqa: E402

WORKS = ('eval', 'imports', 'input', 'step', 'train')


def main() -> None:
    """Makes what is asked for, and does as much of it as it is told to."""
    flags = parse_options(__doc__, WORKS)
    if flags.work == 'imports':
        serve_turns(flags.answers, lambda count: None)
        return
    config = make_config(BenchmarkConfig, mode=flags.work, **flags.options)
    work = benchmark.make_work(config)

    def turn(count: int) -> dict[str, float]:
        # Of an evaluation a unit is a whole pass, which is what any number of steps above 1 gives.
        blocks: list[Block] = [work(2) for _ in range(count)] if flags.work == 'eval' else [work(count)]
        return {'waited': sum(block.waited or 0.0 for block in blocks)}

    serve_turns(flags.answers, turn)


if __name__ == '__main__':
    main()
