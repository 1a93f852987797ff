"""GIFs as training and evaluation decode them, against Pillow: places, palettes, interlace, transparency, frames."""

import contextlib
import functools
import io
import itertools
import struct
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from datasets.conversion.encode import BadImage, encode
from datasets.conversion.recipe import Encoding
from preprocessing import images
from tests.sources import image_file

Y, X = np.mgrid[0:48, 0:64]
PICTURE = Image.fromarray(np.stack([X * 4, Y * 5, (X + Y) * 2], -1).astype(np.uint8))
FEW = PICTURE.quantize(32)


saved = functools.partial(image_file, kind='GIF')


def descriptor(data: bytes) -> int:
    return data.index(b',\0\0\0\0')


def placed(data: bytes, canvas: tuple[int, int], left: int, top: int) -> bytes:
    """With another canvas, and its frame elsewhere."""
    at = descriptor(data)
    return data[:6] + struct.pack('<HH', *canvas) + data[10 : at + 1] + struct.pack('<HH', left, top) + data[at + 5 :]


def with_own_palette(data: bytes) -> bytes:
    """With the palette at the frame instead of the file."""
    bits, at = data[10] & 7, descriptor(data)
    palette = data[13 : 13 + (3 << bits + 1)]
    header = data[:10] + bytes([data[10] & 0x7F]) + data[11:13] + data[13 + len(palette) : at + 9]
    return header + bytes([data[at + 9] | 0x80 | bits]) + palette + data[at + 10 :]


def combined(transparent: bool, interlaced: bool, own_palette: bool, offset: bool) -> bytes:
    options: dict[str, Any] = {'transparency': 3} if transparent else {}
    data = saved(FEW, interlace=interlaced, **options)
    data = with_own_palette(data) if own_palette else data
    return placed(data, (80, 60), 8, 6) if offset else data


PROPERTIES = ('transparent', 'interlaced', 'own palette', 'offset')
CASES = {
    **{
        '-'.join(itertools.compress(PROPERTIES, chosen)) or 'plain': combined(*chosen)
        for chosen in itertools.product((False, True), repeat=4)
    },
    'larger than its canvas': placed(saved(FEW), (10, 10), 3, 4),
    'gray': saved(PICTURE.convert('L')),
    'two colours': saved(PICTURE.convert('1')),
    'a comment of many blocks': saved(FEW, comment=bytes(range(1, 256)) * 12),
    'animated, larger frames later': saved(
        FEW, save_all=True, append_images=[FEW.rotate(90, expand=True), PICTURE.rotate(180).quantize(16)]
    ),
    'many blocks': saved(PICTURE.resize((300, 200)).quantize(256)),
    'one pixel': saved(FEW.crop((0, 0, 1, 1))),
}


@pytest.mark.quick(
    'plain', 'transparent-interlaced-own palette-offset', 'larger than its canvas', 'animated*', 'one pixel'
)
@pytest.mark.parametrize('case', CASES)
def test_the_first_frame_is_pillows(case: str) -> None:
    """In the graph as when called, and as a conversion stores it."""
    with Image.open(io.BytesIO(CASES[case])) as image:
        expected = np.asarray(image.convert('RGB'))
    in_graph = tf.function(images.decode, [tf.TensorSpec([], tf.string)], autograph=False)
    np.testing.assert_array_equal(images.decode(tf.constant(CASES[case])), expected)
    np.testing.assert_array_equal(in_graph(tf.constant(CASES[case])), expected)
    converted = encode(CASES[case], Encoding())
    assert converted.format == 'PNG'
    np.testing.assert_array_equal(images.decode(tf.constant(converted.data)), expected)


def test_damaged_ones_are_refused() -> None:
    """Wherever a file is cut short, and whatever bytes are changed: an image, or an error that says so."""
    whole, random = CASES['transparent-interlaced-own palette-offset'], np.random.RandomState(0)
    decode = tf.function(images.decode, [tf.TensorSpec([], tf.string)], autograph=False)
    end = len(whole) - 3
    for length in range(0, end, 53):
        with pytest.raises(tf.errors.InvalidArgumentError):
            decode(tf.constant(whole[:length]))
        with pytest.raises(BadImage):
            encode(whole[:length], Encoding())
    for _ in range(200):
        damaged = bytearray(whole)
        for position in random.randint(13, 200, 3):
            damaged[position] = random.randint(256)
        with contextlib.suppress(tf.errors.InvalidArgumentError):
            assert decode(tf.constant(bytes(damaged))).dtype == tf.uint8


def test_a_canvas_that_would_take_all_memory_is_refused() -> None:
    for data in (placed(saved(FEW), (50_000, 50_000), 0, 0), placed(saved(FEW), (64, 48), 60_000, 60_000)):
        with pytest.raises(tf.errors.InvalidArgumentError, match='declares more than the 89,478,485 pixels'):
            images.decode(tf.constant(data))
        with pytest.raises(BadImage, match='more than the 89,478,485'):
            encode(data, Encoding())
