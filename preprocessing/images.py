"""Operations on one image on the host: everything that needs the encoded image, or the decoded one of a cache.

Pixels equal slim's: TensorFlow's decoders with default settings, and TensorFlow 1's bilinear resize. The other
resizes match OpenCV and Pillow, which prepared other nets' images.
"""

import functools
from collections.abc import Callable, Sequence

import tensorflow as tf

from preprocessing import gif
from preprocessing.views import Place
from support.input_files import MAX_PIXELS, MAX_SIDES_RATIO

TOO_NARROW = f'too narrow: one side may be at most {MAX_SIDES_RATIO} times the other'
TOO_LARGE_RESIZED = f'too narrow: resized, it would have more than {MAX_PIXELS:,} pixels'


def _in_one_node(function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """Makes a function a single graph node, for a rare branch: each of its own nodes would cost time in every run."""
    node = tf.function(function, autograph=False, experimental_attributes={'_noinline': True})
    return functools.wraps(function)(
        lambda *arguments: function(*arguments) if tf.executing_eagerly() else node(*arguments)
    )


def decode(image: tf.Tensor, channels: int = 3) -> tf.Tensor:
    """Decodes a JPEG, JPEG XL, PNG, GIF (its first frame), BMP or WebP image, recognised by its content.

    Args:
        image: string scalar, the file's bytes; or uint8 [height, width, channels], already decoded and returned as is.
        channels: 3 converts gray and CMYK to RGB; 1 returns the luma (JPEG and PNG only). Transparent pixels keep their
            colour.

    Returns:
        uint8 [height, width, channels] in [0, 255].

    Raises:
        tf.errors.InvalidArgumentError: The bytes are not an image, are cut short, are an animated WebP, or the image
            has too many pixels or is too narrow.
    """
    image = tf.convert_to_tensor(image)
    if image.dtype == tf.uint8:
        return image
    pixels = tf.cond(
        _is_webp_or_gif(image),
        lambda: _decode_webp_or_gif(image, channels),
        lambda: _decode_other(image, channels),
    )
    pixels = _behind(_check_ratio(tf.shape(pixels)[:2]), pixels)
    return tf.ensure_shape(pixels, [None, None, channels])


def decode_window(image: tf.Tensor, choose_window: Callable[[tf.Tensor], tf.Tensor], channels: int = 3) -> tf.Tensor:
    """Decodes the window of an image that `choose_window` selects from the image's shape.

    The pixels equal `decode` followed by a crop, but decoding skips the rest of a JPEG where the format allows it.

    Args:
        image: string scalar, or uint8 [height, width, channels], as in `decode`.
        choose_window: int32 [3] (height, width, channels) -> int32 [4] (y, x, height, width).
        channels: 3 or 1, as in `decode`.

    Returns:
        uint8 [window height, window width, channels] in [0, 255].

    Raises:
        tf.errors.InvalidArgumentError: As in `decode`.
    """
    image = tf.convert_to_tensor(image)

    def from_jpeg() -> tf.Tensor:
        shape = _jpeg_shape(image)
        shape = _behind(_check_ratio(shape[:2]), _behind(_check_size(shape[:2]), shape))
        return _decode_jpeg_window(image, shape, choose_window(shape), channels)

    def from_pixels() -> tf.Tensor:
        pixels = decode(image, channels)
        return crop(pixels, choose_window(tf.shape(pixels)))

    if image.dtype == tf.uint8:
        return from_pixels()
    return tf.cond(tf.io.is_jpeg(image), from_jpeg, _in_one_node(from_pixels))


def _is_webp_or_gif(encoded: tf.Tensor) -> tf.Tensor:
    length = tf.strings.length(encoded)
    is_webp = tf.strings.substr(encoded, tf.minimum(length, 8), 4) == 'WEBP'
    return is_webp | (tf.strings.substr(encoded, 0, tf.minimum(length, 4)) == 'GIF8')


@_in_one_node
def _decode_webp_or_gif(encoded: tf.Tensor, channels: int) -> tf.Tensor:
    is_gif = tf.strings.substr(encoded, 0, 4) == 'GIF8'
    return tf.cond(is_gif, lambda: _decode_gif(encoded), lambda: _decode_webp(encoded, channels))


def _decode_webp(encoded: tf.Tensor, channels: int) -> tf.Tensor:
    # The decoder writes beyond its memory if there are several frames; a bit of the extended header tells.
    is_animated = tf.logical_and(
        tf.strings.substr(encoded, 12, 4) == 'VP8X', tf.bitwise.bitwise_and(_byte(encoded, 20), 2) > 0
    )
    encoded = _refuse(encoded, is_animated, 'an animated WebP')
    # The decoder returns only the channels of the file: three, or four with transparency.
    return tf.io.decode_image(encoded, channels=0, expand_animations=False)[..., :channels]


def _decode_gif(encoded: tf.Tensor) -> tf.Tensor:
    frame = gif.find_frame(encoded)
    alone = _behind(_check_size(frame.canvas), frame.encoded)
    return frame.on_canvas(tf.io.decode_image(alone, channels=3, expand_animations=False))


def _decode_other(encoded: tf.Tensor, channels: int) -> tf.Tensor:
    # The decoder would take the indices of a BMP with a palette for gray values.
    is_bmp = tf.logical_and(tf.strings.substr(encoded, 0, 2) == 'BM', tf.strings.length(encoded) > 30)
    has_palette = tf.cond(is_bmp, lambda: _byte(encoded, 28) <= 8, lambda: False)
    encoded = _refuse(encoded, has_palette, 'a BMP with a palette')
    encoded = _behind(_check_size(_declared_sides(encoded)), encoded)
    return tf.io.decode_image(encoded, channels=channels, expand_animations=False)


def _declared_sides(encoded: tf.Tensor) -> tf.Tensor:
    """Returns int32 [2], the sides in the header of a PNG or JPEG; zeros for anything else."""
    is_png = tf.logical_and(tf.strings.length(encoded) >= 24, tf.strings.substr(encoded, 0, 4) == b'\x89PNG')
    formats = [
        (tf.io.is_jpeg(encoded), lambda: _jpeg_shape(encoded)[:2]),
        (is_png, lambda: tf.io.decode_raw(tf.strings.substr(encoded, 16, 8), tf.int32, little_endian=False)),
    ]
    return tf.case(formats, default=lambda: tf.zeros([2], tf.int32))


def _jpeg_shape(encoded: tf.Tensor) -> tf.Tensor:
    """Returns int32 [3]: height, width and number of components, from the header of a JPEG."""
    # libjpeg prints to standard error for JPEGs cut short in these ways. A complete one ends with this marker.
    is_whole = tf.strings.substr(encoded, -2, 2) == b'\xff\xd9'
    is_cut = tf.cond(is_whole, lambda: False, lambda: _is_cut_short(encoded))
    check = tf.raw_ops.Assert(condition=tf.logical_not(is_cut), data=['a JPEG that is cut short'])
    return tf.io.extract_jpeg_shape(_behind(check, encoded))


@_in_one_node
def _is_cut_short(encoded: tf.Tensor) -> tf.Tensor:
    """Returns whether a JPEG ends before its first scan, or is progressive without an end marker."""
    data = tf.cast(tf.pad(tf.io.decode_raw(encoded, tf.uint8), [[0, 2**17]]), tf.int32)  # a segment's maximum length
    length = tf.strings.length(encoded)

    def behind(segment: tf.Tensor) -> tf.Tensor:
        return segment + 2 + tf.maximum(256 * data[segment + 2] + data[segment + 3], 2)

    def is_in_header(segment: tf.Tensor, _: tf.Tensor) -> tf.Tensor:
        return (segment < length) & tf.equal(data[segment], 0xFF) & tf.not_equal(data[segment + 1], 0xDA)

    def next_segment(segment: tf.Tensor, is_progressive: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return behind(segment), is_progressive | tf.equal(data[segment + 1], 0xC2)

    scan, is_progressive = tf.while_loop(is_in_header, next_segment, (tf.constant(2), tf.constant(False)))
    is_scan = (scan < length) & tf.equal(data[scan], 0xFF)
    has_end = tf.reduce_any(tf.equal(data[scan:-1], 0xFF) & tf.equal(data[scan + 1 :], 0xD9))
    return (scan >= length) | (is_scan & ((behind(scan) > length) | (is_progressive & ~has_end)))


def _check_size(sides: tf.Tensor) -> tf.Operation | None:
    """Refuses a small file that would decode to fill all memory; returns the check, None outside a graph."""
    pixels = tf.reduce_prod(tf.cast(sides, tf.int64))
    message = f'declares more than the {MAX_PIXELS:,} pixels that are allowed'
    return tf.raw_ops.Assert(condition=pixels <= MAX_PIXELS, data=[message])


def _check_ratio(sides: tf.Tensor) -> tf.Operation | None:
    """Refuses a narrow image, which some preprocessings would enlarge by its aspect ratio."""
    is_allowed = tf.reduce_max(sides) <= MAX_SIDES_RATIO * tf.maximum(tf.reduce_min(sides), 1)
    return tf.raw_ops.Assert(condition=is_allowed, data=[TOO_NARROW])


def _check_resized(size: tf.Tensor) -> tf.Operation | None:
    """Refuses a resize that would exhaust memory."""
    pixels = tf.reduce_prod(tf.cast(size, tf.int64))
    return tf.raw_ops.Assert(condition=pixels <= MAX_PIXELS, data=[TOO_LARGE_RESIZED])


def _behind(check: tf.Operation | None, value: tf.Tensor) -> tf.Tensor:
    """Returns `value` after a check has passed."""
    with tf.control_dependencies([check] if check is not None else []):
        return tf.identity(value)


def _byte(encoded: tf.Tensor, place: int) -> tf.Tensor:
    return tf.io.decode_raw(tf.strings.substr(encoded, place, 1), tf.uint8)[0]


def _refuse(encoded: tf.Tensor, condition: tf.Tensor, what: str) -> tf.Tensor:
    message = f'{what}, which TensorFlow cannot read; save it otherwise, or convert it'
    return _behind(tf.raw_ops.Assert(condition=tf.logical_not(condition), data=[message]), encoded)


def _decode_jpeg_window(encoded: tf.Tensor, shape: tf.Tensor, window: tf.Tensor, channels: int) -> tf.Tensor:
    # Subsampled chroma is interpolated between columns, and the decoder lacks the neighbours of the first and
    # last column of its window: these would differ by up to 16. So one more column is decoded on each side.
    y, x, height, width = tf.unstack(window)
    left = tf.minimum(x, 1)
    right = tf.minimum(shape[1] - x - width, 1)
    wider = tf.stack([y, x - left, height, left + width + right])
    image = tf.image.decode_and_crop_jpeg(encoded, wider, channels=channels)
    return image[:, left : left + width]


def crop(image: tf.Tensor, window: tf.Tensor) -> tf.Tensor:
    """Returns int32 [4] `window` (y, x, height, width) of [height, width, channels] `image`."""
    y, x, height, width = tf.unstack(window)
    return image[y : y + height, x : x + width]


def window_at(shape: tf.Tensor, fraction: float, place: Place) -> tf.Tensor:
    """Returns a window of `fraction`, in (0, 1], of each side; the central one is that of `tf.image.central_crop`.

    The window is int32 [4] (y, x, height, width), the shape int32 [3] (height, width, channels).
    """
    sides = tf.cast(shape[:2], tf.float64)
    margin = tf.cast((sides - sides * fraction) / 2, tf.int32)
    return tf.concat([margin * place, shape[:2] - 2 * margin], axis=0)


def crop_at(image: tf.Tensor, size: int, place: Place) -> tf.Tensor:
    """Returns the [size, size, channels] of an image at a place, the offset rounded down (slim: vgg)."""
    start = (tf.shape(image)[:2] - size) * place // 2
    return crop(image, tf.concat([start, [size, size]], axis=0))


def crops_beyond(image: tf.Tensor, size: int, places: Sequence[Place], mode: str) -> list[tf.Tensor]:
    """Returns the [size, size, channels] at each place of an image that may be as small as this, or smaller.

    The centre is that of `crop_or_pad`. At the edges it shifts until it meets the image's edge, but at least by an
    eighth of `size`: by 4 pixels at 32, like the padded crops with which nets are trained on CIFAR-10.

    Args:
        image: [height, width, channels].
        size: Both sides of the crops.
        places: The places.
        mode: What lies beyond the image's edges, as in `tf.pad`: 'CONSTANT' is black; 'REFLECT' needs an image that is
            at least as large as `size`.
    """
    room = tf.shape(image)[:2] - size
    centre = tf.sign(room) * (tf.abs(room) // 2)
    least = size // 8
    starts = (tf.minimum(centre - least, 0), centre, tf.maximum(centre + least, room))
    before, after = tf.maximum(-starts[0], 0), tf.maximum(starts[2] - room, 0)
    padding = tf.stack([before, after], axis=1)
    padded = tf.pad(image, tf.concat([padding, [[0, 0]]], axis=0), mode)
    return [
        crop(padded, tf.stack([(starts[down] + before)[0], (starts[right] + before)[1], size, size]))
        for down, right in places
    ]


def random_crop(image: tf.Tensor, size: int, seed: tf.Tensor) -> tf.Tensor:
    """Returns a uniformly placed [size, size, channels] of an image, a pure function of int64 [2] `seed`.

    Raises:
        tf.errors.InvalidArgumentError: A side of the image is shorter than `size`.
    """
    sides = tf.shape(image)[:2]
    tf.debugging.assert_greater_equal(sides, size, 'the image is smaller than its crop')
    # floor(u * choices) with u < 1, because an integer draw takes one scalar bound for both axes.
    choices = tf.cast(sides - size + 1, tf.float32)
    start = tf.cast(tf.random.stateless_uniform([2], seed, alg='philox') * choices, tf.int32)
    return crop(image, tf.concat([start, [size, size]], axis=0))


def crop_or_pad(image: tf.Tensor, size: int) -> tf.Tensor:
    """Centres an image in [size, size, channels], cropping or adding zeros on each side."""
    return tf.image.resize_with_crop_or_pad(image, size, size)


def resize(image: tf.Tensor, size: tf.Tensor | tuple[int, int], half_pixel_centers: bool = False) -> tf.Tensor:
    """Resizes like TensorFlow 1's `resize_bilinear`: output pixel i samples input pixel i * scale.

    Args:
        image: uint8 or float32 [height, width, channels].
        size: int32 [2] (height, width).
        half_pixel_centers: Sample (i + 1/2) * scale - 1/2 instead, like OpenCV's INTER_LINEAR.

    Returns:
        float32 [size[0], size[1], channels] in the range of `image`.
    """
    if tf.is_tensor(size):
        size = _behind(_check_resized(size), size)
    # The kernel vectorises only float32: including the cast, a uint8 image takes two thirds of the time.
    pixels = tf.cast(image, tf.float32)
    return tf.raw_ops.ResizeBilinear(
        images=pixels[tf.newaxis], size=size, align_corners=False, half_pixel_centers=half_pixel_centers
    )[0]


def resize_antialiased(image: tf.Tensor, size: tf.Tensor | tuple[int, int]) -> tf.Tensor:
    """Resizes like Pillow's BILINEAR: where it shrinks, it averages with a triangle as wide as two output pixels.

    Arguments and result are those of `resize`.
    """
    if tf.is_tensor(size):
        size = _behind(_check_resized(size), size)
    return tf.image.resize(image, size, antialias=True)


def resize_short_side(image: tf.Tensor, side: int | tf.Tensor) -> tf.Tensor:
    """Resizes like `resize`, to a shorter side of `side`, an int32 scalar, keeping the aspect ratio (slim: vgg)."""
    sides = tf.cast(tf.shape(image)[:2], tf.float32)
    scale = tf.cast(side, tf.float32) / tf.reduce_min(sides)
    return resize(image, tf.cast(tf.round(sides * scale), tf.int32))


def resize_by(image: tf.Tensor, scale: float) -> tf.Tensor:
    """Resizes both sides by a factor, like `resize_antialiased`; at 1 returns the image itself, with its dtype."""
    if scale == 1:
        return image
    sides = tf.cast(tf.shape(image)[:2], tf.float32)
    return resize_antialiased(image, tf.cast(tf.maximum(tf.round(sides * scale), 1), tf.int32))


def to_uint8(image: tf.Tensor) -> tf.Tensor:
    """Rounds float32 [height, width, channels] in [0, 255] to the nearest uint8."""
    return tf.cast(tf.round(image), tf.uint8)
