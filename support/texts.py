r"""Texts in files that people bring: UTF-8, with or without the mark that editors of Windows put before it.

decode_text(b'\xef\xbb\xbf0:tench')     # '0:tench'
"""

import codecs

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
