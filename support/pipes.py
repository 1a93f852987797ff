"""Pipes with a name in a folder, at which opening waits for somebody who writes, perhaps for ever.

is_named_pipe('/tmp/fifo')      # True, made by mkfifo
is_named_pipe('/dev/fd/63')     # False: the shell's <(command), which somebody does write to
"""

import os
import stat


def is_named_pipe(path: str | os.PathLike[str]) -> bool:
    """Returns whether a path is a named pipe in a folder, not one of the shell; False for a missing path."""
    try:
        # What the shell makes has no name: /dev/fd/63 leads to pipe:[8192], which is nowhere.
        return stat.S_ISFIFO(os.stat(os.path.realpath(path)).st_mode)
    except (OSError, ValueError):
        return False
