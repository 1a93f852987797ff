"""Operations on a batch of images on the device, with separate random numbers for each image.

All are elementwise or reductions over one image, so that XLA fuses them. `images` are float32
[batch, height, width, 3] unless stated otherwise, and a factor or delta is float32 [batch].
"""

from collections.abc import Callable

import tensorflow as tf


def uniform(seed: tf.Tensor, quantity: int, batch_size: int, low: float = 0.0, high: float = 1.0) -> tf.Tensor:
    """Draws float32 [batch_size] in [low, high): a pure function of int [2] `seed` and `quantity`."""
    return low + _fractions(seed, quantity, [batch_size]) * (high - low)


def uniforms(seed: tf.Tensor, quantity: int, batch_size: int, count: int) -> list[tf.Tensor]:
    """Draws `count` values like `uniform`'s, each float32 [batch_size] in [0, 1); one draw for all compiles faster."""
    return tf.unstack(_fractions(seed, quantity, [batch_size, count]), axis=1)


def _fractions(seed: tf.Tensor, quantity: int, shape: list[int]) -> tf.Tensor:
    """Draws float32 in [0, 1); the first rows of a larger shape equal those of a smaller one."""
    seed = tf.random.fold_in(seed, quantity, alg='philox')
    # Philox gives the same bits with and without XLA, but TensorFlow converts them to different floats.
    bits = tf.random.stateless_uniform(shape, seed, None, None, tf.uint32, alg='philox')
    return tf.cast(tf.bitwise.right_shift(bits, 8), tf.float32) * 2.0**-24


def per_image(values: tf.Tensor) -> tf.Tensor:
    """Reshapes [batch] to [batch, 1, 1, 1], to broadcast over the pixels."""
    return values[:, tf.newaxis, tf.newaxis, tf.newaxis]


def outside_boxes(boxes: tf.Tensor, height: int, width: int) -> tf.Tensor:
    """Returns float32 [batch, height, width, 1]: 0 for pixels inside the image's box, 1 for the others.

    A factor, because on CPUs XLA multiplies by a value shared by three channels at no cost, but selects slowly.
    Boxes are int32 [batch, 4] (top, bottom, left, right), bottom and right excluded.
    """
    top, bottom, left, right = tf.unstack(boxes[:, :, tf.newaxis], axis=1)
    y, x = tf.range(height), tf.range(width)
    rows, columns = (y >= top) & (y < bottom), (x >= left) & (x < right)
    return 1 - tf.cast(rows[:, :, tf.newaxis] & columns[:, tf.newaxis], tf.float32)[..., tf.newaxis]


def if_any(chosen: tf.Tensor, apply: Callable[[], tf.Tensor], otherwise: tf.Tensor) -> tf.Tensor:
    """Returns `apply()` if any element of bool [batch] `chosen` is true, else `otherwise`, of the same shape.

    XLA does not fuse across a branch: fused, these operations would compute each other's values repeatedly and take up
    to ten times as long on CPUs.
    """
    return tf.cond(tf.reduce_any(chosen), apply, lambda: otherwise)


def flip_left_right(images: tf.Tensor, draws: tf.Tensor) -> tf.Tensor:
    """Mirrors the images, of any dtype, whose draw in [0, 1) is below 0.5."""
    # Flattened, because broadcasting the condition over four dimensions takes twice as long on CPUs.
    rows = [tf.shape(images)[0], -1]
    mirrored = tf.reshape(tf.reverse(images, axis=[2]), rows)
    flat = tf.where(draws[:, tf.newaxis] < 0.5, mirrored, tf.reshape(images, rows))
    return tf.reshape(flat, tf.shape(images))


def adjust_brightness(images: tf.Tensor, delta: tf.Tensor) -> tf.Tensor:
    """Adds a delta to each image, without clipping."""
    return images + per_image(delta)


def adjust_contrast(images: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Scales each channel's distance from its mean over the image, like `tf.image.adjust_contrast`."""
    mean = tf.reduce_mean(images, axis=[1, 2], keepdims=True)
    return (images - mean) * per_image(factor) + mean


def adjust_saturation(images: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Scales the saturation, like `tf.image.adjust_saturation`, also for values outside [0, 1].

    That kernel converts to HSV, scales S = spread / V and clips it to [0, 1], and converts back, with S = 0
    where V <= 0. In RGB this scales each channel's distance from V, the largest, by one ratio per pixel.
    A defect of the kernel is not copied: where red is V and green is below blue by a rounding error, the
    hue rounds to a full circle and the pixel turns gray.
    """
    largest, spread = _largest_and_spread(images)
    full_saturation = tf.math.divide_no_nan(tf.nn.relu(largest), spread)
    ratio = tf.minimum(factor[:, tf.newaxis, tf.newaxis], full_saturation)
    return images * ratio[..., tf.newaxis] + (largest * (1 - ratio))[..., tf.newaxis]


def adjust_hue(images: tf.Tensor, delta: tf.Tensor) -> tf.Tensor:
    """Rotates the hue by `delta` of a full circle, like `tf.image.adjust_hue`; each pixel keeps its extremes.

    With the hue counted in sixths of the circle from red, and k = (5, 3, 1) + hue modulo 6 for red, green and
    blue, a channel is `largest - spread * clip(min(k, 4 - k), 0, 1)`: the usual closed form of HSV to RGB.
    """
    red, green, blue = tf.unstack(images, axis=-1)
    largest, spread = _largest_and_spread(images)
    hue = tf.where(
        largest == red,
        tf.math.divide_no_nan(green - blue, spread),
        tf.where(
            largest == green,
            2 + tf.math.divide_no_nan(blue - red, spread),
            4 + tf.math.divide_no_nan(red - green, spread),
        ),
    )
    k = tf.math.floormod(hue[..., tf.newaxis] + 6 * per_image(delta) + tf.constant([5.0, 3.0, 1.0]), 6)
    return largest[..., tf.newaxis] - spread[..., tf.newaxis] * tf.clip_by_value(tf.minimum(k, 4 - k), 0, 1)


def _largest_and_spread(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    # Not by reductions, which are slow on CPUs over an axis of length three.
    red, green, blue = tf.unstack(images, axis=-1)
    largest = tf.maximum(tf.maximum(red, green), blue)
    return largest, largest - tf.minimum(tf.minimum(red, green), blue)


def to_grayscale(images: tf.Tensor) -> tf.Tensor:
    """Returns the luma, float32 [batch, height, width, 1], weighted as in `tf.image.rgb_to_grayscale`."""
    # A sum instead of a matrix product, which GPUs may round to TensorFloat-32's ten bits.
    return tf.reduce_sum(images * tf.constant([0.2989, 0.5870, 0.1140]), axis=-1, keepdims=True)
