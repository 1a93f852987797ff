"""`python -m engine.checkpoints PATH`: prints what is in a checkpoint of any format that is read here."""

import argparse
import sys

from configs import cli
from engine.checkpoints.inspecting import describe


def main(arguments: list[str] | None = None) -> int:
    """Prints it.

    Returns:
        The exit status: 0, or 1 if the path is no checkpoint that can be read.
    """
    parser = argparse.ArgumentParser(prog='python -m engine.checkpoints', description=__doc__)
    parser.add_argument('path', help='prefix of a checkpoint, a train_dir, a .keras or a .weights.h5 file')
    path = parser.parse_args(arguments).path

    def print_description() -> int:
        for line in describe(path):
            print(line)
        return 0

    return cli.exit_status(print_description)


if __name__ == '__main__':
    sys.exit(main())
