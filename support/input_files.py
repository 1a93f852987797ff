r"""Users' files: UTF-8 text, named pipes, size limits of images.

decode_text(b'\xef\xbb\xbf0:tench')     # '0:tench': without the byte order mark that Windows editors add
is_named_pipe('/tmp/fifo')           # True, made by mkfifo: opening it waits for a writer, perhaps for ever
is_named_pipe('/dev/fd/63')          # False: the shell's <(command), which has a writer
"""

import codecs
import os
import stat

# Pixels of an image. Pillow's limit against decompression bombs: a file of a few KB must not decode to more than
# 256 MiB. The largest photographs of ILSVRC have 61 million pixels.
MAX_PIXELS = 89_478_485
# Ratio of an image's sides: some preprocessings first resize the shorter side to 256 pixels.
MAX_SIDES_RATIO = MAX_PIXELS // 256**2
# Longer marks first: UTF-32's mark begins with UTF-16's.
_OTHER_MARKS = {
    codecs.BOM_UTF32_LE: 'UTF-32',
    codecs.BOM_UTF32_BE: 'UTF-32',
    codecs.BOM_UTF16_LE: 'UTF-16',
    codecs.BOM_UTF16_BE: 'UTF-16',
}


class NotUtf8Error(ValueError):
    """A file is not UTF-8 text. The message names the likely encoding or the bad byte, and the fix."""


def decode_text(data: bytes) -> str:
    """Decodes UTF-8 text, without its byte order mark.

    Raises:
        NotUtf8Error: the data is not UTF-8.
    """
    other = next((name for mark, name in _OTHER_MARKS.items() if data.startswith(mark)), None)
    if other is not None:
        raise NotUtf8Error(f'it begins as {other} does; save it as UTF-8')
    try:
        return data.decode('utf-8-sig')
    except UnicodeDecodeError as error:
        line = data.count(b'\n', 0, error.start) + 1
        raise NotUtf8Error(f'line {line} has the byte 0x{data[error.start]:02x}; save it as UTF-8') from error


def is_named_pipe(path: str | os.PathLike[str]) -> bool:
    """Returns whether a path is a named pipe in a folder, not the shell's; False for a missing path."""
    try:
        # The shell's pipes have no name: /dev/fd/63 resolves to pipe:[8192], which does not exist.
        return stat.S_ISFIFO(os.stat(os.path.realpath(path)).st_mode)
    except (OSError, ValueError):
        return False
