"""One side of a measurement: a process that works when it is told to, and sleeps otherwise.

    flags = parse_options(__doc__, works=('host', 'entropy'))
    iterator = iter(batches)
    serve(flags.answers, lambda: next(iterator))

Each line of standard input is a number of units of work, batches or steps; when they are done, `done` is answered, and
behind it as JSON what is to be known of them. Peers run this with an interpreter of their own, so only the standard
library is needed here.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Collection
from typing import Any


def parse_options(description: str | None, works: Collection[str]) -> argparse.Namespace:
    """Parses what a contestant is told: work, options, a dictionary that the command line has as JSON, and answers."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('work', choices=sorted(works))
    parser.add_argument('--answers', type=int, default=1, help='file descriptor that the answers go to')
    parser.add_argument('--options', type=json.loads, default={}, help='JSON: what the work depends on')
    return parser.parse_args()


def serve(answers: int, take: Callable[[], object]) -> None:
    """Calls `take` as often as each line of standard input says, until it ends."""

    def turn(count: int) -> None:
        for _ in range(count):
            take()

    serve_turns(answers, turn)


def serve_turns(answers: int, turn: Callable[[int], dict[str, Any] | None]) -> None:
    """Calls `turn` with the number in each line of standard input, until it ends; what it returns is answered."""
    with os.fdopen(answers, 'w') as file:
        print('ready', file=file, flush=True)
        for line in sys.stdin:
            print('done', json.dumps(turn(int(line)) or {}), file=file, flush=True)
