"""The EXIF orientation of an image file: read from its bytes, and applied to its pixels.

number = read_orientation(data)         # 1 to 8, as in EXIF; 1 is upright
upright = turn(pixels, number)

EXIF is in a JPEG's APP1 segment, in a PNG's eXIf chunk and in a WebP's EXIF chunk. Source: CIPA DC-008, Exif 2.3.
"""

import struct
from collections.abc import Iterator

import numpy as np

_ORIENTATION, _SHORT = 0x0112, 3
_TIFF = {b'II*\0': '<', b'MM\0*': '>'}
_MAX_ENTRIES = 1000
_START_OF_SCAN = 0xDA


def read_orientation(data: bytes) -> int:
    """Returns the orientation in an image file or its first part; 1 if absent or invalid.

    Never raises: damaged data counts as absent.
    """
    try:
        for exif in _find_exif(data):
            if (found := _orientation_of(exif)) is not None:
                return found
    except (struct.error, IndexError):
        pass
    return 1


def turn(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Returns [height, width, channels] rotated and mirrored to upright; a view.

    Args:
        pixels: The stored pixels.
        orientation: 1 to 8.
    """
    if orientation in (3, 4, 6, 7):
        pixels = pixels[::-1]
    if orientation in (2, 3, 7, 8):
        pixels = pixels[:, ::-1]
    return pixels.swapaxes(0, 1) if orientation >= 5 else pixels


def _find_exif(data: bytes) -> Iterator[bytes]:
    if data.startswith(b'\xff\xd8'):
        yield from _app1_segments(data)
    elif data.startswith(b'\x89PNG'):
        yield from _chunks(data, 8, b'eXIf', '>', trailer=4, padded=False)
    elif data.startswith(b'RIFF') and data[8:12] == b'WEBP':
        yield from _chunks(data, 12, b'EXIF', '<', trailer=0, padded=True)


def _app1_segments(data: bytes) -> Iterator[bytes]:
    position = 2
    while data[position] == 0xFF and data[position + 1] != _START_OF_SCAN:
        (length,) = struct.unpack_from('>H', data, position + 2)
        if data[position + 1] == 0xE1 and data.startswith(b'Exif\0', position + 4):
            yield data[position + 10 : position + 2 + length]
        position += 2 + max(length, 2)


def _chunks(data: bytes, position: int, name: bytes, order: str, *, trailer: int, padded: bool) -> Iterator[bytes]:
    """Yields the content of chunks by name; a PNG has length before name and a checksum, a WebP the reverse order."""
    while position + 8 <= len(data):
        first, second = data[position : position + 4], data[position + 4 : position + 8]
        kind, length = (first, second) if padded else (second, first)
        (size,) = struct.unpack(f'{order}I', length)
        if kind == name:
            yield data[position + 8 : position + 8 + size].removeprefix(b'Exif\0\0')
        position += 8 + size + trailer + (size % 2 if padded else 0)


def _orientation_of(exif: bytes) -> int | None:
    """Returns the orientation in the first directory of a TIFF header, or None."""
    order = _TIFF.get(exif[:4])
    if order is None:
        return None
    (directory,) = struct.unpack_from(f'{order}I', exif, 4)
    (count,) = struct.unpack_from(f'{order}H', exif, directory)
    for number in range(min(count, _MAX_ENTRIES)):
        tag, kind, _, value = struct.unpack_from(f'{order}HHIH', exif, directory + 2 + 12 * number)
        if tag == _ORIENTATION:
            return value if kind == _SHORT and 1 <= value <= 8 else None
    return None
