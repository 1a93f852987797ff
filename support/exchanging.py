"""Two names on one file system exchanged at once, which Linux can and Python's library does not offer.

exchange('/tmp/.part-net/net', '/tmp/net')     # True: each has what the other had, at no moment is one missing
"""

import ctypes
import errno
import functools
import os
from collections.abc import Callable

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
# The system is too old, or the file system cannot do it.
_CANNOT = (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP, errno.EPERM)


def exchange(one: str, other: str) -> bool:
    """Exchanges two files or folders atomically; returns False, with nothing changed, where that cannot be done.

    Raises:
        OSError: It can be done elsewhere, but not with these.
    """
    rename = _renameat2()
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) == 0:
        return True
    number = ctypes.get_errno()
    if number in _CANNOT:
        return False
    raise OSError(number, os.strerror(number), one, None, other)


@functools.cache
def _renameat2() -> Callable[..., int] | None:
    """Returns the C library's function; None where it has none, as before glibc 2.28 and on other systems."""
    try:
        return ctypes.CDLL(None, use_errno=True).renameat2
    except (AttributeError, OSError, TypeError):
        return None
