"""RandAugment (Cubuk et al. 2019, arXiv:1909.13719): a few random operations per image, all of one magnitude.

    stage = RandAugment(num_ops=2, magnitude=9.0)
    draws = stage.make_draws(seed, batch_size)
    images = stage(images, draws)                       # uint8 [batch, height, width, channels], in and out

Each operation is one of `OPERATIONS`, in one of two directions if it has two. All arithmetic is in integers and
equals Pillow's with nearest-neighbour sampling. Source of the ranges: the paper's code, and timm's `auto_augment` where
that makes the change grow with the magnitude; see docs/augmentation.md.
"""

import dataclasses
import math

import tensorflow as tf

from preprocessing import batches, lookup_tables

MAX_MAGNITUDE = 10.0

# The change at the largest magnitude.
_DEGREES = 30.0
_SHEAR = 0.3
_TRANSLATION = 0.45  # of the side
_ENHANCEMENT = 0.9  # added to or subtracted from the factor 1
_BITS_LOST = 4
_THRESHOLDS = 256  # solarisation begins this far below white

_FILL = 128  # fills areas outside the image, as in the paper's code

_CHOICE = 17  # the random quantity, numbered after those of the preprocessings

# Operations that map each value, blend with another image, or move pixels.
_LOOKED_UP = ('auto_contrast', 'equalize', 'solarize', 'posterize', 'contrast', 'brightness')
_BLENDED = ('color', 'sharpness')
_MOVED = ('rotate', 'shear_x', 'shear_y', 'translate_x', 'translate_y')
OPERATIONS = ('identity', *_LOOKED_UP, *_BLENDED, *_MOVED)
_ENHANCED = ('contrast', 'brightness', *_BLENDED)


@dataclasses.dataclass(frozen=True)
class RandAugment:
    """The device stage that applies `num_ops` operations to each image in sequence.

    Attributes:
        num_ops: At least 1.
        magnitude: In [0, 10]; at 0 only auto_contrast and equalize change an image.
    """

    num_ops: int
    magnitude: float

    def make_draws(self, seed: tf.Tensor, batch_size: int) -> dict[str, tf.Tensor]:
        """Draws rand_augment, int32 [batch, num_ops]: 2 * operation + direction."""
        choices = tf.stack(batches.uniforms(seed, _CHOICE, batch_size, self.num_ops), axis=1)
        return {'rand_augment': tf.cast(choices * (2 * len(OPERATIONS)), tf.int32)}

    def __call__(self, images: tf.Tensor, draws: dict[str, tf.Tensor]) -> tf.Tensor:
        """Applies the drawn operations to uint8 [batch, height, width, channels]."""
        choices = draws['rand_augment']
        _, images = tf.while_loop(  # so that compilation time does not grow with num_ops
            lambda k, _: k < self.num_ops,
            lambda k, images: (k + 1, self._apply(images, tf.gather(choices, k, axis=1))),
            (tf.constant(0), images),
            parallel_iterations=1,
        )
        return images

    def _apply(self, images: tf.Tensor, choice: tf.Tensor) -> tf.Tensor:
        """Applies one operation to each image; every image passes all three kinds, of which at most one changes it."""
        operation, factor = choice // 2, tf.gather(self._factors(), choice)
        matrices = tf.gather(self._matrices(*images.shape[1:3]), choice)
        blended = batches.if_any(_is(operation, _BLENDED), lambda: _blend(images, operation, factor), images)
        moved = batches.if_any(_is(operation, _MOVED), lambda: warp(blended, matrices), blended)
        is_looked_up = _is(operation, _LOOKED_UP)
        identity = tf.broadcast_to(lookup_tables.IDENTITY, [images.shape[0], images.shape[-1], 256])
        tables = batches.if_any(is_looked_up, lambda: self._tables(moved, operation, factor, identity), identity)
        return batches.if_any(is_looked_up, lambda: lookup_tables.look_up(moved, tables), moved)

    def _tables(self, images: tf.Tensor, operation: tf.Tensor, factor: tf.Tensor, tables: tf.Tensor) -> tf.Tensor:
        """Returns each image's lookup table, int32 [batch, channels, 256]: `tables` if its operation has none."""
        strength = self.magnitude / MAX_MAGNITUDE
        # Not Python's round, which rounds halves to even.
        bits = 8 - math.floor(strength * _BITS_LOST + 0.5)
        choices = {
            'auto_contrast': lookup_tables.auto_contrast(images),
            'equalize': lookup_tables.equalization(images, _is(operation, ('equalize',))),
            'solarize': lookup_tables.solarization(_THRESHOLDS - int(strength * _THRESHOLDS)),
            'posterize': lookup_tables.posterization(bits),
            'contrast': lookup_tables.contrast(images, factor),
            'brightness': lookup_tables.brightness(factor),
        }
        for name, table in choices.items():
            tables = tf.where(_is(operation, (name,))[:, tf.newaxis, tf.newaxis], table, tables)
        return tables

    def _factors(self) -> tf.Tensor:
        """Returns the factor of every operation and direction, int32 in units of 1 / ONE; 1 if it has none."""
        change = _ENHANCEMENT * self.magnitude / MAX_MAGNITUDE
        pairs = [(1 + change, 1 - change) if name in _ENHANCED else (1, 1) for name in OPERATIONS]
        return tf.constant([round(factor * lookup_tables.ONE) for pair in pairs for factor in pair])

    def _matrices(self, height: int, width: int) -> tf.Tensor:
        """Returns the matrix of every operation and direction: int32 [choices, 6], for `warp`."""
        rows = []
        for name in OPERATIONS:
            for sign in (1.0, -1.0):
                matrix = _matrix(name, sign * self.magnitude / MAX_MAGNITUDE, height, width)
                rows.append([round(value * 2**16) for value in _from_centres(matrix)])
        return tf.constant(rows)


def warp(images: tf.Tensor, matrices: tf.Tensor) -> tf.Tensor:
    """Moves pixels by an affine map with nearest-neighbour sampling; areas outside the image become gray.

    Args:
        images: uint8 [batch, height, width, channels].
        matrices: int32 [batch, 6] (a, b, c, d, e, f) in 1/65536: output pixel (x, y) is input pixel
            (floor(a x + b y + c), floor(d x + e y + f)).
    """
    size, height, width, channels = images.shape
    a, b, c, d, e, f = tf.unstack(matrices[:, :, tf.newaxis, tf.newaxis], axis=1)
    y, x = tf.range(height)[:, tf.newaxis], tf.range(width)
    from_x = tf.bitwise.right_shift(a * x + b * y + c, 16)
    from_y = tf.bitwise.right_shift(d * x + e * y + f, 16)
    is_inside = (from_x >= 0) & (from_x < width) & (from_y >= 0) & (from_y < height)
    places = tf.reshape(tf.where(is_inside, from_y * width + from_x, 0), [size, height * width])
    # XLA's gather is six times faster on CPUs than TensorFlow's ImageProjectiveTransformV3, which XLA lacks.
    taken = tf.gather(tf.reshape(images, [size, height * width, channels]), places, batch_dims=1)
    gray = tf.constant(_FILL, tf.uint8)
    return tf.where(is_inside[..., tf.newaxis], tf.reshape(taken, images.shape), gray)


def _is(operation: tf.Tensor, names: tuple[str, ...]) -> tf.Tensor:
    return tf.reduce_any(operation[:, tf.newaxis] == [OPERATIONS.index(name) for name in names], axis=1)


def _matrix(name: str, strength: float, height: int, width: int) -> tuple[float, ...]:
    """Returns (a, b, c, d, e, f) of an operation, for coordinates from the image's corner."""
    matrices = {
        'shear_x': (1, _SHEAR * strength, 0, 0, 1, 0),
        'shear_y': (1, 0, 0, _SHEAR * strength, 1, 0),
        'translate_x': (1, 0, _TRANSLATION * strength * width, 0, 1, 0),
        'translate_y': (1, 0, 0, 0, 1, _TRANSLATION * strength * height),
        'rotate': _rotation(math.radians(_DEGREES * strength), height, width),
    }
    return matrices.get(name, (1, 0, 0, 0, 1, 0))


def _rotation(angle: float, height: int, width: int) -> tuple[float, ...]:
    """Returns the matrix that rotates the image counterclockwise about its centre."""
    cos, sin = math.cos(angle), math.sin(angle)
    x, y = width / 2, height / 2
    return cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y


def _from_centres(matrix: tuple[float, ...]) -> tuple[float, ...]:
    """Converts a matrix to pixel indices, whose centres are half a pixel from their corner."""
    a, b, c, d, e, f = matrix
    return a, b, c + (a + b) / 2, d, e, f + (d + e) / 2


def _blend(images: tf.Tensor, operation: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Blends each image with its luma, with a smoothed copy, or not at all."""
    gray = tf.broadcast_to(lookup_tables.luma(images), images.shape)
    other = tf.where(batches.per_image(_is(operation, ('color',))), gray, _smooth(images))
    factor = tf.where(_is(operation, _BLENDED), factor, lookup_tables.ONE)
    blended = lookup_tables.blend(other, tf.cast(images, tf.int32), batches.per_image(factor))
    return tf.cast(blended, tf.uint8)


def _smooth(images: tf.Tensor) -> tf.Tensor:
    """Returns int32, each pixel the mean of its 3x3 neighbourhood with the centre weighted five; edges are unchanged.

    As Pillow's `ImageFilter.SMOOTH`.
    """
    size, height, width, channels = images.shape
    # Rows of whole pixels in 16 bits: on CPUs seven times faster than four dimensions in 32 bits.
    values = tf.cast(tf.reshape(images, [size, height, width * channels]), tf.int16)
    if min(height, width) > 2:
        rows = values[:, :-2] + values[:, 1:-1] + values[:, 2:]
        total = rows[:, :, : -2 * channels] + rows[:, :, channels:-channels] + rows[:, :, 2 * channels :]
        inner = (total + 4 * values[:, 1:-1, channels:-channels] + 6) // 13
        inner = tf.concat([values[:, 1:-1, :channels], inner, values[:, 1:-1, -channels:]], axis=2)
        values = tf.concat([values[:, :1], inner, values[:, -1:]], axis=1)
    return tf.cast(tf.reshape(values, images.shape), tf.int32)
