"""Runs in worker processes: writes pieces of shards and joins them.

    prepare_worker()                                                                     # once in each process
    piece = write_piece('/data/.train-00000-of-00002.0.part', images, recipe, max_bad_images=0)
    num_bytes, sha256 = join_pieces([piece.path, ...])                                   # all in the first file

A piece is a complete TFRecord file, because such files can be concatenated. So several processes can work on one
shard, and its content does not depend on their number.

TensorFlow is imported in the functions: the parent process works without it.
"""

import collections
import dataclasses
import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from datasets.conversion.recipe import Recipe
from datasets.conversion.stopping import cannot_write, reason
from datasets.source import SourceImage
from support.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

    from datasets.conversion.encode import EncodedImage

_CHUNK = 2**20


@dataclasses.dataclass
class Piece:
    """A written piece.

    Attributes:
        path: The file.
        labels: Label -> number of records.
        skipped: Name and reason of each image that was left out.
        changes: Change made to images -> number of images.
    """

    path: str
    labels: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)
    skipped: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    changes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)


def prepare_worker() -> None:
    """Limits TensorFlow to the CPU and one thread."""
    os.environ['CUDA_VISIBLE_DEVICES'] = '-1'
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def write_piece(path: str, images: Sequence[SourceImage], recipe: Recipe, max_bad_images: int) -> Piece:
    """Writes the records of images, in order.

    Raises:
        InputError: More than `max_bad_images` of them are unreadable, or the file cannot be written.
    """
    import tensorflow as tf

    from datasets import tfrecord

    piece = Piece(path)
    try:
        tfrecord.write_records(path, _examples(images, recipe, max_bad_images, piece))
    except (OSError, tf.errors.OpError) as error:
        raise cannot_write(os.path.dirname(path), error) from error
    return piece


def _examples(
    images: Sequence[SourceImage], recipe: Recipe, max_bad_images: int, piece: Piece
) -> 'Iterator[tf.train.Example]':
    """Yields the records, and adds their labels, changes and skipped images to `piece`."""
    import tensorflow as tf

    from datasets.conversion.encode import encode

    for image in images:
        try:
            encoded = encode(recipe.read(image), recipe.encoding)
        except (InputError, OSError, tf.errors.OpError) as error:
            piece.skipped.append((image.name, reason(error)))
            if len(piece.skipped) > max_bad_images:
                raise bad_image(image, reason(error), max_bad_images) from error
            continue
        piece.labels[image.label] += 1
        piece.changes.update(encoded.changes)
        yield _example(image, encoded, recipe)


def _example(image: SourceImage, encoded: 'EncodedImage', recipe: Recipe) -> 'tf.train.Example':
    from datasets import tfrecord

    if not recipe.imagenet:
        name = {'JPEG': 'jpg', 'PNG': 'png'}[encoded.format]
        return tfrecord.image_example(encoded.data, name, encoded.height, encoded.width, image.label)
    return tfrecord.imagenet_example(
        encoded.data,
        encoded.height,
        encoded.width,
        image.label,
        synset=recipe.class_ids[image.label],
        text=recipe.class_names[image.label],
        filename=os.path.basename(image.name),
        boxes=image.boxes,
    )


def bad_image(image: SourceImage, why: str, max_bad_images: int) -> InputError:
    """Returns the error for an unreadable image that exceeds the limit."""
    on_its_own = os.path.basename(image.path) == os.path.basename(image.name)
    where = image.path if on_its_own else f'{image.path}, {image.name}'
    return InputError(
        f'{where}: {why}; repair or remove this image, or allow N unreadable ones with --max_bad_images=N '
        f'(={max_bad_images})'
    )


def join_pieces(paths: Sequence[str]) -> tuple[int, str]:
    """Appends files to the first one and removes them; flushes the result to disk.

    Returns:
        The result's size in bytes and its SHA-256 in hexadecimal.

    Raises:
        InputError: The disk is full or fails.
    """
    digest = hashlib.sha256()
    try:
        with open(paths[0], 'r+b') as joined:
            while chunk := joined.read(_CHUNK):
                digest.update(chunk)
            for path in paths[1:]:
                with open(path, 'rb') as piece:
                    while chunk := piece.read(_CHUNK):
                        digest.update(chunk)
                        joined.write(chunk)
                os.remove(path)
            joined.flush()
            os.fsync(joined.fileno())
            return joined.tell(), digest.hexdigest()
    except OSError as error:
        raise cannot_write(os.path.dirname(paths[0]), error) from error
