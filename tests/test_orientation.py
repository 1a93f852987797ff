"""The orientation that cameras write: read from each format, applied as Pillow does, and never an error."""

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from datasets.orientation import read_orientation, turn
from engine.prediction.image_files import prepare
from preprocessing.preprocessing_factory import get_preprocessing
from tests.sources import image_file

PIXELS = np.random.RandomState(0).randint(0, 256, (5, 7, 3), np.uint8)
FORMATS = {'JPEG': {}, 'PNG': {}, 'WEBP': {'lossless': True}}


def encoded(orientation: int | None, image_format: str, pixels: np.ndarray = PIXELS, **options) -> bytes:
    exif = Image.Exif()
    exif[0x010F] = 'a camera'
    if orientation is not None:
        exif[0x0112] = orientation
    return image_file(Image.fromarray(pixels), image_format, exif=exif, **FORMATS[image_format], **options)


@pytest.mark.parametrize('image_format', FORMATS)
@pytest.mark.parametrize('orientation', range(1, 9))
def test_all_orientations_of_all_formats(image_format: str, orientation: int) -> None:
    data = encoded(orientation, image_format)
    assert read_orientation(data) == orientation
    with Image.open(io.BytesIO(data)) as stored:
        expected = np.asarray(ImageOps.exif_transpose(stored).convert('RGB'))
        np.testing.assert_array_equal(turn(np.asarray(stored.convert('RGB')), orientation), expected)


def test_what_says_none() -> None:
    plain = image_file(Image.fromarray(PIXELS), 'JPEG')
    for data in (plain, encoded(None, 'JPEG'), encoded(0, 'JPEG'), encoded(9, 'PNG'), b'', b'GIF89a', b'BM'):
        assert read_orientation(data) == 1


def test_big_endian_and_behind_other_segments() -> None:
    exif = b'Exif\0\0MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0'
    segment = b'\xff\xe1' + (len(exif) + 2).to_bytes(2, 'big') + exif
    other = b'\xff\xe0\0\x04ab\xff\xe1\0\x0ahttp://a'
    assert read_orientation(b'\xff\xd8' + other + segment + b'\xff\xda') == 6
    assert read_orientation(b'\xff\xd8' + other + b'\xff\xda\0\2' + segment) == 1  # behind the scan: no header


@pytest.mark.parametrize('image_format', FORMATS)
def test_damaged_bytes_never_fail(image_format: str) -> None:
    random, data = np.random.RandomState(0), encoded(6, image_format)
    for _ in range(300):
        damaged = bytearray(data)
        for position in random.randint(0, min(len(data), 120), 3):
            damaged[position] = random.randint(256)
        assert 1 <= read_orientation(bytes(damaged[: random.randint(1, len(data) + 1)])) <= 8


@pytest.mark.parametrize(
    ('name', 'channels', 'source_channels'),
    [('inception', 3, 3), ('vgg', 3, 3), ('whole', 1, 1), ('inception', 1, 3)],
)
@pytest.mark.parametrize('image_format', FORMATS)
def test_predict_sees_images_as_viewers_do(name: str, channels: int, source_channels: int, image_format: str) -> None:
    """The same as the picture stored upright; without the option, as it is stored."""
    preprocessing = get_preprocessing(name, 24, channels=channels, source_channels=source_channels)
    y, x = np.mgrid[0:48, 0:80]
    smooth = np.stack([x * 3, y * 5, (x + y) * 2], -1).astype(np.uint8)
    as_stored, turned = encoded(1, image_format, smooth), encoded(6, image_format, smooth)
    upright = image_file(Image.fromarray(np.rot90(smooth, -1)), 'PNG')
    seen, ignored, stored, expected = (
        prepare(preprocessing, [data], apply_exif_orientation=applied)[0]
        for data, applied in ((turned, True), (turned, False), (as_stored, True), (upright, True))
    )
    np.testing.assert_array_equal(ignored, stored)
    assert isinstance(seen, np.ndarray)
    assert isinstance(expected, np.ndarray)
    levels = 12 if image_format == 'JPEG' else 1
    np.testing.assert_allclose(seen, expected, rtol=0, atol=levels / 255 * preprocessing.host_range)
