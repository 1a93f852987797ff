"""One side of a measurement: a process that works on request and sleeps otherwise.

    if __name__ == '__main__':
        serve(__doc__, {'eager': eager, 'imports': imports})

The first argument names a work, and `--options` are the arguments of its function, which returns a turn function.
That takes a number of units of work (batches or steps), read from a line of standard input, and may return the seconds
spent waiting. The answer is `done` and these seconds. Peers run this module with their own interpreter, so it needs
only the standard library.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Mapping

Turn = Callable[[int], float | None]


def serve(description: str | None, works: Mapping[str, Callable[..., Turn]]) -> None:
    """Prepares the work that the command line names, and runs a turn for each line of standard input."""
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
    """Returns a turn function that calls `take` repeatedly."""

    def turn(count: int) -> None:
        for _ in range(count):
            take()

    return turn


def imports() -> Turn:
    """A work that does nothing after its imports, to measure their memory."""
    return repeated(lambda: None)
