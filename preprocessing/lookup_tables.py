"""Operations that map each value of a channel, as lookup tables: int32 [batch, channels, 256] in [0, 255].

    images = look_up(images, tf.where(chosen, equalization(images, chosen), IDENTITY))

Integers throughout, so that every device computes the same bits; the results equal Pillow's `ImageOps` and
`ImageEnhance`. `images` are uint8 [batch, height, width, channels].
"""

import tensorflow as tf

ONE = 2**20  # factors are integers in units of 1 / ONE

# The table that changes nothing, from which other tables are computed.
IDENTITY = tuple(range(256))


def look_up(images: tf.Tensor, tables: tf.Tensor) -> tf.Tensor:
    """Replaces every value by its entry in the table."""
    channels = images.shape[-1]
    places = tf.cast(images, tf.int32) + 256 * tf.range(channels)
    tables = tf.reshape(tf.cast(tables, tf.uint8), [-1, channels * 256])
    return tf.reshape(tf.gather(tables, tf.reshape(places, [images.shape[0], -1]), batch_dims=1), tf.shape(images))


def blend(first: tf.Tensor, second: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Returns `first + factor * (second - first)`, truncated and clipped to [0, 255], as Pillow's `Image.blend`.

    Args:
        first: int32, values in [0, 255].
        second: int32, values in [0, 255].
        factor: int32, in units of 1 / ONE and at most 2; ONE returns `second` exactly.
    """
    # Adds a little, as fixed-point 1.9 is slightly too small, and 10 times it would be truncated to 18.
    scaled = ONE * first + factor * (second - first) + ONE // 2**12
    return tf.clip_by_value(tf.bitwise.right_shift(scaled, 20), 0, 255)


def luma(images: tf.Tensor) -> tf.Tensor:
    """Returns int32 [batch, height, width, 1] in [0, 255], as Pillow converts to 'L'; gray images are unchanged."""
    values = tf.cast(images, tf.int32)
    if images.shape[-1] == 1:
        return values
    red, green, blue = tf.unstack(values, axis=-1)
    return tf.bitwise.right_shift(19595 * red + 38470 * green + 7471 * blue + 2**15, 16)[..., tf.newaxis]


def solarization(threshold: int) -> tf.Tensor:
    """Returns the table, int32 [256], that inverts values from `threshold` up."""
    return tf.constant([255 - value if value >= threshold else value for value in IDENTITY])


def posterization(bits: int) -> tf.Tensor:
    """Returns the table, int32 [256], that keeps the highest `bits` bits of each value."""
    return tf.constant([value & (256 - 2 ** (8 - bits)) for value in IDENTITY])


def brightness(factor: tf.Tensor) -> tf.Tensor:
    """Returns tables that multiply by a factor, int32 [batch] in units of 1 / ONE."""
    return blend(tf.constant(0), tf.constant(IDENTITY), factor[:, tf.newaxis, tf.newaxis])


def contrast(images: tf.Tensor, factor: tf.Tensor) -> tf.Tensor:
    """Returns tables that scale the distance from the image's mean luma by int32 [batch] in units of 1 / ONE."""
    height, width = images.shape[1:3]
    # The sum of a row fits in 32 bits, the sum of a large image does not.
    total = tf.reduce_sum(tf.cast(tf.reduce_sum(luma(images), axis=[2, 3]), tf.int64), axis=1)
    mean = tf.cast((2 * total + height * width) // (2 * height * width), tf.int32)
    return blend(mean[:, tf.newaxis, tf.newaxis], tf.constant(IDENTITY), factor[:, tf.newaxis, tf.newaxis])


def auto_contrast(images: tf.Tensor) -> tf.Tensor:
    """Returns tables that stretch each channel from its extremes to [0, 255]; constant channels are unchanged."""
    low, high = (extreme[..., tf.newaxis] for extreme in _extremes(images))
    stretched = (tf.constant(IDENTITY) - low) * 255 // tf.maximum(high - low, 1)
    return tf.where(high > low, tf.clip_by_value(stretched, 0, 255), tf.constant(IDENTITY))


def equalization(images: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
    """Returns tables that flatten each channel's histogram for images chosen by bool [batch]; else the identity."""
    counts = _histograms(images, chosen)
    below = tf.cumsum(counts, axis=-1, exclusive=True)
    # The count below the highest value that occurs is spread over 255 steps.
    step = tf.reduce_max(tf.where(counts > 0, below, 0), axis=-1, keepdims=True) // 255
    spread = tf.minimum((below + step // 2) // tf.maximum(step, 1), 255)
    return tf.where(step > 0, spread, tf.constant(IDENTITY))


def _extremes(images: tf.Tensor) -> list[tf.Tensor]:
    """Returns the minimum and maximum of each channel: int32 [batch, channels] each."""
    size, height, width, channels = images.shape
    # First over long rows of one tensor: on CPUs four times faster than over both sides at once, which XLA computes as
    # two separate reductions.
    rows = tf.reshape(images, [size, height, width * channels])
    reduced = ((reduce, reduce(rows, axis=1)) for reduce in (tf.reduce_min, tf.reduce_max))
    return [tf.cast(reduce(tf.reshape(row, [size, width, channels]), axis=1), tf.int32) for reduce, row in reduced]


def _histograms(images: tf.Tensor, chosen: tf.Tensor) -> tf.Tensor:
    """Counts the values of the chosen images: int32 [batch, channels, 256], zeros for the others."""
    size, channels = images.shape[0], images.shape[-1]
    chosen_first = tf.argsort(tf.cast(chosen, tf.int32), direction='DESCENDING', stable=True)

    def count(k: tf.Tensor, counts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        # Gathered instead of sliced: XLA treats the start of a slice as a constant and compiles anew for each.
        index = tf.gather(chosen_first, k)
        image = tf.cast(tf.gather(images, index), tf.int32)
        bins = tf.reshape(image + 256 * tf.range(channels), [-1])
        row = tf.math.unsorted_segment_sum(tf.ones_like(bins), bins, channels * 256)
        return k + 1, tf.tensor_scatter_nd_update(counts, [[index]], row[tf.newaxis])

    # Counting takes longer than everything else, and one image in fourteen needs it: a loop over these is ten times
    # faster on CPUs than counting all at once.
    number = tf.math.count_nonzero(chosen, dtype=tf.int32)
    start = (tf.constant(0), tf.zeros([size, channels * 256], tf.int32))
    _, counts = tf.while_loop(lambda k, _: k < number, count, start, parallel_iterations=1)
    return tf.reshape(counts, [size, channels, 256])
