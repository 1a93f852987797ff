"""What the converter stores of an image: kept, re-encoded, resized, refused."""

import io
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from datasets.conversion import encode
from datasets.conversion.encode import BadImage
from datasets.conversion.recipe import Encoding
from preprocessing import gif, images
from tests.sources import image_file, png_header

SharedPath = Callable[[str], Path]
FOLDER, IMAGENET = Encoding(), Encoding(jpeg_only=True)


@pytest.fixture(scope='module')
def photo(shared_path: SharedPath) -> Image.Image:
    """A photograph of 500x375 pixels, decoded."""
    path = shared_path('data/imagenet_raw_mini/train/n02105855/n02105855_1.JPEG')
    with Image.open(path) as image:
        return image.convert('RGB')


def _pixels(data: bytes) -> np.ndarray:
    return images.decode(tf.constant(data)).numpy().astype(int)


def _exact_pixels(data: bytes) -> np.ndarray:
    """Without the rounding of the fast decoder, which at the highest quality is larger than that of the encoder."""
    if not tf.io.is_jpeg(data):
        return _pixels(data)
    return tf.io.decode_jpeg(data, channels=3, dct_method='INTEGER_ACCURATE').numpy().astype(int)


def _with_alpha(image: Image.Image) -> Image.Image:
    image = image.copy()
    image.putalpha(Image.linear_gradient('L').resize(image.size))
    return image


def _sixteen_bits(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert('L')).astype(np.uint16) * 257)


# The file of a photograph -> what a folder of images, and ImageNet, store of it.
FORMATS = {
    'JPEG': (lambda photo: image_file(photo, 'JPEG'), 'kept', 'kept'),
    'gray JPEG': (lambda photo: image_file(photo.convert('L'), 'JPEG'), 'kept', 'kept'),
    'progressive JPEG': (lambda photo: image_file(photo, 'JPEG', progressive=True), 'kept', 'kept'),
    'CMYK JPEG': (lambda photo: image_file(photo.convert('CMYK'), 'JPEG', quality=100), 'CMYK to RGB', 'CMYK to RGB'),
    'PNG': (lambda photo: image_file(photo, 'PNG'), 'kept', 'PNG to JPEG'),
    'PNG with transparency': (lambda photo: image_file(_with_alpha(photo), 'PNG'), 'kept', 'PNG to JPEG'),
    'PNG of 16 bits': (lambda photo: image_file(_sixteen_bits(photo), 'PNG'), 'kept', 'PNG to JPEG'),
    'PNG with a palette': (lambda photo: image_file(photo.quantize(64), 'PNG'), 'kept', 'PNG to JPEG'),
    'GIF': (lambda photo: image_file(photo, 'GIF'), 'GIF to PNG', 'GIF to JPEG'),
    'animated GIF': (
        lambda photo: image_file(photo, 'GIF', save_all=True, append_images=[photo.rotate(90)]),
        'GIF to PNG',
        'GIF to JPEG',
    ),
    'BMP': (lambda photo: image_file(photo, 'BMP'), 'BMP to PNG', 'BMP to JPEG'),
    'WebP': (lambda photo: image_file(photo, 'WEBP'), 'WebP to PNG', 'WebP to JPEG'),
    'WebP with transparency': (
        lambda photo: image_file(_with_alpha(photo), 'WEBP', lossless=True, exact=True),
        'WebP to PNG',
        'WebP to JPEG',
    ),
}


@pytest.mark.parametrize('case', FORMATS)
def test_a_folder_of_images_keeps_its_pixels(photo: Image.Image, case: str) -> None:
    """Read directly or through records, the pixels are the same; only CMYK is encoded with loss."""
    make, change, _ = FORMATS[case]
    data = make(photo)
    encoded = encode.encode(data, FOLDER)
    assert (encoded.height, encoded.width) == (375, 500)
    assert encoded.changes == (() if change == 'kept' else (change,))
    assert (encoded.data == data) == (change == 'kept')
    assert encode.image_format(encoded.data) == encoded.format
    if change == 'CMYK to RGB':
        assert np.abs(_exact_pixels(encoded.data) - _exact_pixels(data)).max() <= 4
    else:
        np.testing.assert_array_equal(_pixels(encoded.data), _pixels(data))


@pytest.mark.parametrize('case', FORMATS)
def test_imagenet_is_all_jpeg(photo: Image.Image, case: str) -> None:
    make, _, change = FORMATS[case]
    data = make(photo)
    encoded = encode.encode(data, IMAGENET)
    assert (encoded.format, encoded.height, encoded.width) == ('JPEG', 375, 500)
    assert encoded.changes == (() if change == 'kept' else (change,))
    assert (encoded.data == data) == (change == 'kept')
    assert tf.io.extract_jpeg_shape(encoded.data).numpy()[2] == (1 if case == 'gray JPEG' else 3)
    assert np.abs(_exact_pixels(encoded.data) - _exact_pixels(data)).max() <= 4


def test_orientation_is_left_as_it_is_stored(photo: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter; TensorFlow ignores it
    data = image_file(photo, 'JPEG', quality=100, exif=exif)
    resized = encode.encode(data, Encoding(resize_shorter_side=188))
    assert (resized.height, resized.width) == (188, 251)
    assert encode.encode(data, FOLDER).data == data


# size, asked for -> size of what is stored
SIZES = {
    'landscape': ((500, 375), 256, (341, 256)),
    'portrait': ((375, 500), 256, (256, 341)),
    'square': ((400, 400), 256, (256, 256)),
    'exactly as large': ((300, 256), 256, None),
    'one pixel larger': ((300, 257), 256, (299, 256)),
    'smaller': ((200, 100), 256, None),
    'large enough to be decoded at half its size': ((1200, 1030), 256, (298, 256)),
    'very long': ((4000, 20), 10, (2000, 10)),
}


@pytest.mark.parametrize('case', SIZES)
@pytest.mark.parametrize('file_format', ['JPEG', 'PNG'])
def test_resizing(photo: Image.Image, case: str, file_format: str) -> None:
    size, side, expected = SIZES[case]
    original = photo.resize(size)
    data = image_file(original, file_format)
    encoded = encode.encode(data, Encoding(resize_shorter_side=side, jpeg_quality=95))
    if expected is None:
        assert (encoded.data, encoded.changes) == (data, ())
        return
    assert (encoded.width, encoded.height) == expected
    assert encoded.changes == (('resized',) if file_format == 'JPEG' else ('PNG to JPEG', 'resized'))
    assert (encoded.format, tf.io.extract_jpeg_shape(encoded.data).numpy().tolist()) == ('JPEG', [*expected[::-1], 3])
    reference = np.asarray(original.resize(expected, Image.Resampling.LANCZOS)).astype(int)
    assert np.abs(_exact_pixels(encoded.data) - reference).mean() < 5


def test_quality_is_that_of_resized_images(photo: Image.Image) -> None:
    data = image_file(photo, 'JPEG')
    sizes = [len(encode.encode(data, Encoding(resize_shorter_side=256, jpeg_quality=q)).data) for q in (50, 90, 100)]
    assert sizes == sorted(set(sizes))


def test_small_sets_stay_lossless(photo: Image.Image) -> None:
    encoded = encode.encode(image_file(photo, 'PNG'), Encoding(keep_png=True, resize_shorter_side=32))
    assert (encoded.format, encoded.height, encoded.changes) == ('PNG', 32, ('resized',))
    expected = photo.resize((43, 32), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(_pixels(encoded.data), np.asarray(expected))


# What is wrong with an image


BAD_IMAGES = {
    'empty': (b'', 'the file is empty'),
    'text': (b'<html></html>', 'not an image in a known format (JPEG, PNG, GIF, BMP, WebP)'),
    'JPEG header only': (b'\xff\xd8\xff\xe0\0\x10JFIF', 'a JPEG with a damaged header'),
    'PNG header cut': (png_header(5, 5)[:18], 'a PNG with a damaged header'),
    'PNG without pixels': (png_header(5, 5), 'a PNG that is damaged or cut short'),
    'PNG bomb': (png_header(100_000, 100_000), '100000 x 100000 pixels are more than the 89,478,485 that are allowed'),
    'GIF bomb': (b'GIF89a\xff\xff\xff\xff', '65535 x 65535 pixels are more than the 89,478,485 that are allowed'),
    'GIF with a larger frame': (
        b'GIF89a\1\0\1\0\0\0\0,\0\0\0\0\xff\xff\xff\xff\0',
        'more than the 89,478,485 pixels that are allowed',
    ),
    'narrow': (png_header(1, 9000), '1 x 9000 pixels: too narrow: one side may be at most 1365 times the other'),
    'BMP header only': (b'BM' + bytes(20), 'a BMP with a damaged header'),
    'BMP bomb': (
        b'BM' + struct.pack('<IIIIiiHHIIiiII', 54, 0, 54, 40, 60_000, 60_000, 1, 24, 0, 0, 0, 0, 0, 0),
        'more than the 89,478,485 pixels that are allowed',
    ),
    'WebP header only': (b'RIFF\x04\0\0\0WEBP', 'a WebP with a damaged header'),
}


@pytest.mark.parametrize('case', BAD_IMAGES)
@pytest.mark.parametrize('encoding', [FOLDER, Encoding(jpeg_only=True, resize_shorter_side=8)])
def test_bad_images_are_refused(case: str, encoding: Encoding) -> None:
    data, message = BAD_IMAGES[case]
    with pytest.raises(BadImage) as raised:
        encode.encode(data, encoding)
    assert str(raised.value) == message


@pytest.mark.parametrize('case', FORMATS)
@pytest.mark.parametrize(
    'encoding', [FOLDER, IMAGENET, Encoding(resize_shorter_side=16)], ids=['kept', 'jpeg', 'small']
)
def test_images_that_are_cut_short_are_refused(photo: Image.Image, case: str, encoding: Encoding) -> None:
    data = FORMATS[case][0](photo.resize((64, 48)))
    first_frame = 0.4 if case == 'animated GIF' else 0.9  # as when it is read directly, the others do not matter
    for length in range(20, int(len(data) * first_frame), len(data) // 12):
        with pytest.raises(BadImage):
            encode.encode(data[:length], encoding)


def test_what_was_kept_can_be_read_whatever_was_wrong_with_it(photo: Image.Image) -> None:
    """TensorFlow itself decides: of photographs with zeros for a tail, Pillow accepts some that it does not."""
    data = image_file(photo, 'JPEG')
    random = np.random.default_rng(0)
    refused = 0
    for position in random.integers(0, len(data), 60):
        damaged = bytearray(data)
        damaged[position : position + 3] = random.bytes(3)
        try:
            kept = encode.encode(bytes(damaged), FOLDER).data
        except BadImage:
            refused += 1
            continue
        assert images.decode(tf.constant(kept)).shape == (375, 500, 3)
        assert tf.image.decode_and_crop_jpeg(kept, [370, 490, 5, 10], channels=3).shape == (5, 10, 3)
    assert 0 < refused < 60
    with pytest.raises(BadImage, match='a JPEG that is damaged or cut short'):
        encode.encode(data[: len(data) // 2] + bytes(len(data) // 2), FOLDER)


def test_only_the_first_frame_of_a_gif_is_decoded(photo: Image.Image) -> None:
    """Each with a palette of its own, a comment before the first, and transparency."""
    frames = [photo.resize((64, 48)).rotate(angle).convert('P') for angle in (0, 90, 180)]
    file = io.BytesIO()
    frames[0].save(file, 'GIF', save_all=True, append_images=frames[1:], comment=b'x' * 700, transparency=3)
    frame = gif.find_frame(tf.constant(file.getvalue()))
    alone = frame.encoded.numpy()
    assert len(alone) < len(file.getvalue()) / 2
    assert tf.io.decode_gif(alone).shape == (1, 48, 64, 3)
    np.testing.assert_array_equal(_pixels(alone), images.decode(tf.constant(file.getvalue())).numpy())
    np.testing.assert_array_equal(_pixels(alone), np.asarray(Image.open(file).convert('RGB')))
