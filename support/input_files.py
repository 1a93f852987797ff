r"""Files that people bring: texts in UTF-8, named pipes, limits of images.

decode_text(b'\xef\xbb\xbf0:tench')     # '0:tench': without the mark that editors of Windows put before it
is_named_pipe('/tmp/fifo')           # True, made by mkfifo: to open it waits for a writer, perhaps for ever
is_named_pipe('/dev/fd/63')          # False: the shell's <(command), which somebody does write to
"""

import codecs
import os
import stat

# Pixels of an image; Pillow's own limit against decompression bombs: a file of a few KB must not take more than 256 MiB
# of pixels. The largest photographs of ILSVRC have 61 million.
MAX_PIXELS = 89_478_485
# Of the sides of an image: some preprocessings make the shorter one 256 pixels first.
MAX_SIDES_RATIO = MAX_PIXELS // 256**2
# The longer ones first: UTF-32's begins as UTF-16's.
_OTHER_MARKS = {
    codecs.BOM_UTF32_LE: 'UTF-32',
    codecs.BOM_UTF32_BE: 'UTF-32',
    codecs.BOM_UTF16_LE: 'UTF-16',
    codecs.BOM_UTF16_BE: 'UTF-16',
}


class NotUtf8Error(ValueError):
    """A file is no text in UTF-8: what it looks like, and what to do."""


def decode_text(data: bytes) -> str:
    """Returns the text of a file.

    Raises:
        NotUtf8Error: it is not UTF-8.
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
    """Returns whether a path is a named pipe in a folder, not one of the shell; False for a missing path."""
    try:
        # What the shell makes has no name: /dev/fd/63 leads to pipe:[8192], which is nowhere.
        return stat.S_ISFIFO(os.stat(os.path.realpath(path)).st_mode)
    except (OSError, ValueError):
        return False
