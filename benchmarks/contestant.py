"""One side of a measurement: a process that works when it is told to, and sleeps otherwise.

    if __name__ == '__main__':
        serve(__doc__, {'eager': eager, 'imports': imports})

The first argument names a work, and `--options` are the arguments of its function. That returns another one, which
does as many units of the work, batches or steps, as a line of standard input says, and may return how many seconds of
it were waits. The answer is `done` and this. Peers run it with an interpreter of their own: it needs but the standard
library.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping

Turn = Callable[[int], float | None]


def serve(description: str | None, works: Mapping[str, Callable[..., Turn]]) -> None:
    """Makes what the command line asks for, and does as much of it as each line of standard input says."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('work', choices=sorted(works))
    parser.add_argument('--answers', type=int, default=1, help='file descriptor that the answers go to')
    parser.add_argument('--options', type=json.loads, default={}, help='JSON: the arguments of the work')
    flags = parser.parse_args()
    turn = works[flags.work](**flags.options)
    with os.fdopen(flags.answers, 'w') as file:
        print('ready', file=file, flush=True)
        for line in sys.stdin:
            print('done', turn(int(line)) or 0.0, file=file, flush=True)


def repeated(take: Callable[[], object]) -> Turn:
    """Returns the function that calls `take` a number of times."""

    def turn(count: int) -> None:
        for _ in range(count):
            take()

    return turn


def imports() -> Turn:
    """A work that is nothing but its imports, whose memory is measured."""
    return repeated(lambda: None)
