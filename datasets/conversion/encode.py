"""Converts an image file's bytes to the bytes that a record stores, and checks that TensorFlow can decode them.

    encode(data, Encoding(jpeg_only=True))     # EncodedImage(data=..., format='JPEG', height=375, width=500)

The content determines the format, never the name: ILSVRC has a PNG and 22 CMYK JPEGs among its `.JPEG`s. Images that
are stored unchanged were decoded once by the operation that decodes records, so training can read them.
"""

import dataclasses
import functools
import io
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from datasets.conversion.recipe import Encoding
from datasets.record_faults import SIGNATURES, format_of
from support.errors import InputError
from support.input_files import MAX_PIXELS, MAX_SIDES_RATIO

_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # start-of-frame markers of a JPEG
_DECODED_FRAMES = {0xC0, 0xC1, 0xC2, 0xC9, 0xCA}
_PROGRESSIVE, _START_OF_SCAN, _END_OF_IMAGE = 0xC2, 0xDA, b'\xff\xd9'
# What Pillow raises for damaged files.
_PILLOW_FAILURES = (OSError, SyntaxError, ValueError, EOFError, struct.error)


class BadImage(InputError):
    """An image cannot be decoded; the message gives the reason, without the image's name."""


@dataclasses.dataclass(frozen=True)
class EncodedImage:
    """An image as a record stores it.

    Attributes:
        data: The bytes of a JPEG or PNG file.
        format: 'JPEG' or 'PNG'.
        height: Height in pixels.
        width: Width in pixels.
        changes: Changes made, such as 'CMYK to RGB'; empty if the source's bytes are unchanged.
    """

    data: bytes
    format: str
    height: int
    width: int
    changes: tuple[str, ...] = ()


def encode(data: bytes, encoding: Encoding) -> EncodedImage:
    """Decodes an image to check it, and encodes it again where `encoding` requires it.

    Raises:
        BadImage: It is not an image, damaged, cut short, has too many pixels, or is too narrow.
    """
    found = image_format(data)
    height, width, channels = read_header(data, found)
    side = encoding.resize_shorter_side
    resized = side is not None and min(height, width) > side
    cmyk = found == 'JPEG' and channels == 4
    if not resized and not cmyk and (found == 'JPEG' or (found == 'PNG' and not encoding.jpeg_only)):
        pixels = _decode(data, found, _decode_by_tensorflow)
        return EncodedImage(data, found, *pixels.shape[:2])

    if side is not None and resized:
        image = _resize(data, found, width, height, side)
    else:
        image = Image.fromarray(_decode(data, found, _DECODERS[found]))
    target = _target(found, resized, encoding)
    changes = [f'{found} to {target}'] * (found != target) + ['CMYK to RGB'] * cmyk + ['resized'] * resized
    return EncodedImage(_save(image, target, resized, encoding), target, image.height, image.width, tuple(changes))


def image_format(data: bytes) -> str:
    """Returns 'JPEG', 'PNG', 'GIF', 'BMP' or 'WebP', according to the first bytes.

    Raises:
        BadImage: It has none of these formats.
    """
    if not data:
        raise BadImage('the file is empty')
    found = format_of(data)
    if found not in SIGNATURES:
        raise BadImage(f'not an image in a known format ({", ".join(SIGNATURES)})')
    return found


def read_header(data: bytes, found: str) -> tuple[int, int, int]:
    """Returns height, width and a JPEG's number of components (otherwise 0), without decoding.

    Raises:
        BadImage: The header is damaged, or the image has so many pixels, or is so narrow, that decoding or resizing
            could exhaust memory.
    """
    height, width, channels = _parse_header(data, found)
    check_sides(height, width)
    return height, width, channels


def check_sides(height: int, width: int) -> None:
    """Raises BadImage if an image has too many pixels or is too narrow."""
    if height * width > MAX_PIXELS:
        raise BadImage(f'{width} x {height} pixels are more than the {MAX_PIXELS:,} that are allowed')
    if max(height, width) > MAX_SIDES_RATIO * max(min(height, width), 1):
        problem = f'too narrow: one side may be at most {MAX_SIDES_RATIO} times the other'
        raise BadImage(f'{width} x {height} pixels: {problem}')


def _parse_header(data: bytes, found: str) -> tuple[int, int, int]:
    try:
        if found == 'JPEG':
            return _parse_jpeg_header(data)
        if found == 'PNG':
            width, height = struct.unpack_from('>II', data, 16)
            return height, width, 0
        if found == 'GIF':  # its first frame may enlarge the canvas, which Pillow handles
            width, height = struct.unpack_from('<HH', data, 6)
            check_sides(height, width)
        with Image.open(io.BytesIO(data), formats=[found]) as image:
            return image.height, image.width, 0
    except BadImage:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImage(f'more than the {MAX_PIXELS:,} pixels that are allowed') from error
    except (tf.errors.OpError, *_PILLOW_FAILURES) as error:
        raise BadImage(f'a {found} with a damaged header') from error


def _parse_jpeg_header(data: bytes) -> tuple[int, int, int]:
    """Returns height, width and number of components of a JPEG.

    libjpeg prints to standard error for a JPEG cut short in its header, or anywhere if progressive, so it is not called
    for these.

    Raises:
        struct.error: The header is cut short.
        BadImage: The rest is cut short, or the kind of JPEG is not supported.
        tf.errors.InvalidArgumentError: It is damaged otherwise.
    """
    position, found, is_progressive = 2, [0, 0, 0], False
    while data[position : position + 1] == b'\xff':
        marker, length = struct.unpack_from('>xBH', data, position)
        if marker == 0xFF:  # padding
            position += 1
            continue
        end = position + 2 + max(length, 2)
        struct.unpack_from('x', data, end - 1)
        if marker in _FRAMES:
            bits, *found = struct.unpack_from('>BHHB', data, position + 4)
            _check_frame(marker, bits)
            is_progressive = marker == _PROGRESSIVE
        if marker == _START_OF_SCAN:
            if is_progressive and data.find(_END_OF_IMAGE, end) < 0:
                raise BadImage('a JPEG that is damaged or cut short')
            if found[0]:  # otherwise the frame header follows the scan
                return found[0], found[1], found[2]
            break
        position = end
    if position >= len(data):
        raise struct.error('no scan')
    height, width, channels = tf.io.extract_jpeg_shape(data).numpy().tolist()
    return height, width, channels


def _check_frame(marker: int, bits: int) -> None:
    """Raises BadImage for kinds of JPEG that TensorFlow's libjpeg does not support."""
    if marker not in _DECODED_FRAMES:
        raise BadImage('a lossless or hierarchical JPEG, which cannot be read; save it otherwise')
    if bits != 8:
        raise BadImage(f'a JPEG of {bits} bits a sample, which cannot be read; save it with 8')


def _decode(data: bytes, found: str, decoder: Callable[[bytes], Any]) -> np.ndarray:
    """Returns uint8 [height, width, 3]."""
    try:
        return np.asarray(decoder(data))
    except BadImage:
        raise
    except (tf.errors.OpError, *_PILLOW_FAILURES) as error:
        raise BadImage(f'a {found} that is damaged or cut short') from error


def _decode_by_tensorflow(data: bytes) -> tf.Tensor:
    """Decodes like `preprocessing.images.decode`, without its dispatch in the graph, which takes 0.25 ms here."""
    return tf.io.decode_image(data, channels=3, expand_animations=False)


def _decode_jpeg(data: bytes, ratio: int = 1) -> tf.Tensor:
    return tf.io.decode_jpeg(data, channels=3, ratio=ratio, dct_method='INTEGER_ACCURATE')


def _decode_by_pillow(data: bytes) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=['BMP', 'GIF', 'WEBP']) as image:
        return image.convert('RGB')


# TensorFlow ignores a BMP's palette and the position of a GIF's frame, and cannot decode a WebP with several frames.
# Pillow clips values above 255 in a 16-bit PNG.
_DECODERS: dict[str, Callable[[bytes], Any]] = {
    'JPEG': _decode_jpeg,
    'PNG': _decode_by_tensorflow,
    'GIF': _decode_by_pillow,
    'BMP': _decode_by_pillow,
    'WebP': _decode_by_pillow,
}


def _resize(data: bytes, found: str, width: int, height: int, side: int) -> Image.Image:
    """Returns the image with a shorter side of `side` pixels."""
    decoder = _DECODERS[found]
    if found == 'JPEG':
        # Decodes to at least twice the final size: half a gray level from full decoding (RMS), and a photograph of
        # 2000x1500 takes 18 ms instead of 38, one of 4000x3000 30 instead of 196.
        ratio = max(ratio for ratio in (1, 2, 4, 8) if ratio == 1 or min(width, height) >= 2 * ratio * side)
        decoder = functools.partial(_decode_jpeg, ratio=ratio)
    image = Image.fromarray(_decode(data, found, decoder))
    return image.resize(_smaller_size(width, height, side), Image.Resampling.LANCZOS)


def _smaller_size(width: int, height: int, side: int) -> tuple[int, int]:
    """Returns the width and height with `side` as the shorter one."""
    if width < height:
        return side, round(height * side / width)
    return round(width * side / height), side


def _target(found: str, resized: bool, encoding: Encoding) -> str:
    if encoding.jpeg_only or found == 'JPEG':
        return 'JPEG'
    if found == 'PNG' and encoding.keep_png:
        return 'PNG'
    return 'JPEG' if resized else 'PNG'


def _save(image: Image.Image, target: str, resized: bool, encoding: Encoding) -> bytes:
    """Returns an image file; if only the format changes, it keeps all that JPEG can keep."""
    file = io.BytesIO()
    if target == 'PNG':
        image.save(file, 'PNG')
    elif resized:
        image.save(file, 'JPEG', quality=encoding.jpeg_quality)
    else:
        image.save(file, 'JPEG', quality=100, subsampling='4:4:4')
    return file.getvalue()
