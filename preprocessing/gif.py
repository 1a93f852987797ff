"""The first frame of a GIF, as Pillow renders it: at its place on the canvas, with transparent pixels in their colour.

    frame = find_frame(encoded)
    image = frame.on_canvas(tf.io.decode_image(frame.encoded, channels=3, expand_animations=False))

TensorFlow's decoder takes the largest frame as the canvas, keeps all frames in memory, and makes transparent pixels
black. So it gets only the first frame, without position and transparency, and the canvas is then added around the
result. All of it runs in the graph: a Python function would delay other images, and could not run in the workers of a
tf.data service.

Source: GIF89a, appendix A and B; Pillow's GifImagePlugin.
"""

from typing import NamedTuple

import tensorflow as tf

_HEADER_BYTES, _DESCRIPTOR_BYTES = 13, 10
_EXTENSION, _CONTROL, _IMAGE = ord('!'), 0xF9, ord(',')


class Frame(NamedTuple):
    """The first frame of a GIF.

    Attributes:
        encoded: string scalar, a GIF of this frame alone, without transparency.
        canvas: int32 [2], height and width.
        box: int32 [4] (y, x, height, width), the frame's area on the canvas.
        around: uint8 [3], the colour outside: the transparent colour if there is one, else the first of the palette.
    """

    encoded: tf.Tensor
    canvas: tf.Tensor
    box: tf.Tensor
    around: tf.Tensor

    def on_canvas(self, pixels: tf.Tensor) -> tf.Tensor:
        """Pads the frame's pixels, uint8 [height, width, 3], to the canvas."""
        before = self.box[:2]
        paddings = tf.stack([before, self.canvas - before - self.box[2:]], axis=1)
        return tf.pad(pixels - self.around, tf.pad(paddings, [[0, 1], [0, 0]])) + self.around  # uint8 wraps around


def find_frame(encoded: tf.Tensor) -> Frame:
    """Finds the first frame of a GIF.

    Args:
        encoded: string scalar, the file's bytes.

    Raises:
        tf.errors.InvalidArgumentError: The GIF has no frame.
    """
    # The zeros appended here end every loop, and keep all positions below in range.
    data = tf.pad(tf.io.decode_raw(encoded, tf.uint8), [[0, 2**11]])
    palette = _palette_bytes(data[10])
    start, transparent = _skip_extensions(data, _HEADER_BYTES + palette)
    check = tf.raw_ops.Assert(
        condition=tf.equal(data[start], _IMAGE), data=['a GIF that is damaged, or cut short before its first frame']
    )
    with tf.control_dependencies([check] if check is not None else []):
        start = tf.identity(start)
    x, y, width, height = tf.unstack(_uint16s(data[start + 1 : start + 9]), num=4)
    flags = data[start + 9]
    own_palette = _palette_bytes(flags)
    end = _end_of_blocks(data, start + _DESCRIPTOR_BYTES + own_palette + 1)
    parts = [
        tf.strings.substr(encoded, 0, _HEADER_BYTES + palette),
        ',\0\0\0\0',
        tf.strings.substr(encoded, start + 5, tf.minimum(end, tf.strings.length(encoded)) - start - 5),
        ';',
    ]
    colours = tf.where(own_palette > 0, start + _DESCRIPTOR_BYTES, _HEADER_BYTES) + 3 * transparent
    canvas = tf.maximum(_uint16s(data[6:10]), tf.stack([x + width, y + height]))
    return Frame(
        tf.strings.join(parts),
        canvas[::-1],
        tf.stack([y, x, height, width]),
        tf.ensure_shape(data[colours : colours + 3], [3]),
    )


def _skip_extensions(data: tf.Tensor, start: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns the position of the first block that is not an extension, and the transparent colour's number, or 0."""

    def skip(position: tf.Tensor, transparent: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        is_control = tf.equal(data[position + 1], _CONTROL) & tf.equal(data[position + 3] & 1, 1)
        transparent = tf.where(is_control, tf.cast(data[position + 6], tf.int32), transparent)
        return _end_of_blocks(data, position + 2), transparent

    return tf.while_loop(lambda position, _: tf.equal(data[position], _EXTENSION), skip, (start, tf.constant(0)))


def _end_of_blocks(data: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
    """Returns the position after a sequence of blocks, each preceded by its size; the last is empty."""

    def skip(position: tf.Tensor) -> tuple[tf.Tensor]:
        # Skips all blocks of equal size at once; in a frame, usually all but the last are equal.
        step = tf.cast(data[position], tf.int32) + 1
        differs = tf.not_equal(tf.ensure_shape(data[position::step], [None]), data[position])
        return (position + step * tf.argmax(tf.cast(differs, tf.int32), output_type=tf.int32),)

    (end,) = tf.while_loop(lambda position: data[position] > 0, skip, (start,))
    return end + 1


def _palette_bytes(flags: tf.Tensor) -> tf.Tensor:
    bits = tf.cast(flags & 7, tf.int32) + 1
    return tf.where(flags >= 128, 3 * tf.bitwise.left_shift(1, bits), 0)


def _uint16s(data: tf.Tensor) -> tf.Tensor:
    """Converts little-endian uint8 [2 * numbers] to int32 [numbers]."""
    low, high = tf.cast(data[::2], tf.int32), tf.cast(data[1::2], tf.int32)
    return low + 256 * high
