"""One side of a measurement: a process that takes batches when it is told to, and sleeps otherwise.

    flags = parse_flags(__doc__, works=('host', 'entropy'))
    iterator = iter(batches)
    serve(flags.answers, lambda: next(iterator))

Each line of standard input is a number of batches; when they have been taken, `done` is answered. Peers run this with
an interpreter of their own, so only the standard library is needed here.
"""

import argparse
import os
import sys
from collections.abc import Callable, Collection


def parse_flags(description: str | None, works: Collection[str]) -> argparse.Namespace:
    """Parses what every contestant is told: work, dataset_dir, batch_size, answers."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('work', choices=sorted(works))
    parser.add_argument('--dataset_dir', required=True)
    parser.add_argument('--batch_size', type=int, required=True)
    parser.add_argument('--answers', type=int, default=1, help='file descriptor that the answers go to')
    return parser.parse_args()


def serve(answers: int, take: Callable[[], object]) -> None:
    """Calls `take` as often as each line of standard input says, until it ends."""
    with os.fdopen(answers, 'w') as file:
        print('ready', file=file, flush=True)
        for line in sys.stdin:
            for _ in range(int(line)):
                take()
            print('done', file=file, flush=True)
