"""`python -m engine.checkpoints PATH`: prints what is in a checkpoint of any format that is read here."""

import argparse
import os
import sys

from configs.errors import InputError
from engine.checkpoints.inspecting import describe


def main(arguments: list[str] | None = None) -> int:
    """Prints it.

    Returns:
        The exit status: 0, or 1 if the path is no checkpoint that can be read.
    """
    parser = argparse.ArgumentParser(prog='python -m engine.checkpoints', description=__doc__)
    parser.add_argument('path', help='prefix of a checkpoint, a train_dir, a .keras or a .weights.h5 file')
    path = parser.parse_args(arguments).path
    try:
        for line in describe(path):
            print(line)
    except InputError as error:
        print(f'error: {error}', file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read our output, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    return 0


if __name__ == '__main__':
    sys.exit(main())
