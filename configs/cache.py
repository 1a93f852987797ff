"""Allowed values of `--cache`.

check_cache('/data/cache')
"""

from support.errors import InputError

_WORDS = ('auto', 'memory', 'off')
_NO_FOLDERS = {'', *_WORDS, 'mem', 'ram', 'on', 'none', 'no', 'yes', 'true', 'false', 'disk'}


def check_cache(cache: str) -> None:
    """Refuses what is meant as a word and is none, and folders that cannot be mapped.

    Raises:
        InputError: with what is allowed.
    """
    if '://' in cache:
        raise InputError(
            f'--cache={cache}: must be auto, memory, off, or a folder of this machine, for its file is mapped'
        )
    if cache.strip().lower() in _NO_FOLDERS and cache not in _WORDS:
        raise InputError(f'--cache={cache}: must be auto, memory, off, or a folder (./{cache.strip()} if you mean one)')
