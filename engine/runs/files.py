"""The files of a `train_dir`: their names, the runs in a folder, a run's last checkpoint.

find_runs('/tmp/runs')                      # ['/tmp/runs/a', '/tmp/runs/b']
last_checkpoint('/tmp/runs/a')              # (1000, 1764590000.0): its step, and when it was written
"""

import os
import re

from support.errors import InputError

CONFIG, DATA, LOCK = 'config.cfg', 'data.json', '.lock'
HISTORY = 'evaluations.json'
_CHECKPOINT = r'model\.ckpt-(\d+)\.index'
_OF_RUN = rf'{re.escape(CONFIG)}|{re.escape(HISTORY)}|{re.escape(LOCK)}|{_CHECKPOINT}|.*tfevents.*'


def find_runs(folder: str) -> list[str]:
    """Returns the folder itself if it is a run's, otherwise the runs among its subfolders, by name.

    Raises:
        InputError: there is no such folder, or no run.
    """
    if '://' in folder:
        raise InputError(f'{folder}: only runs on this machine are read; copy it, or mount it')
    if not os.path.isdir(folder):
        raise InputError(f'{folder}: {"not a folder" if os.path.lexists(folder) else "no such folder"}')
    if _is_run(folder):
        return [folder]
    folders = (os.path.join(folder, name) for name in sorted(_names(folder)))
    found = [path for path in folders if os.path.isdir(path) and os.access(path, os.R_OK | os.X_OK) and _is_run(path)]
    if not found:
        raise InputError(f'{folder}: no run in it, nor in its folders; give the --train_dir of a training')
    return found


def last_checkpoint(train_dir: str) -> tuple[int, float] | None:
    """Returns the step of a run's last checkpoint and when it was written, in seconds since 1970; None without one."""
    matches = (re.fullmatch(_CHECKPOINT, name) for name in _names(train_dir))
    found = [(int(match[1]), match[0]) for match in matches if match]
    if not found:
        return None
    step, name = max(found)
    return step, os.stat(os.path.join(train_dir, name)).st_mtime


def _is_run(folder: str) -> bool:
    return any(re.fullmatch(_OF_RUN, name) for name in _names(folder))


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError as error:
        raise InputError(f'{folder}: {error.strerror}') from error
