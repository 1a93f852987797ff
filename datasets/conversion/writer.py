"""Worker processes that write pieces of shards, which are then joined.

    prepare_worker()                                                                     # once in each process
    piece = write_piece('/data/.train-00000-of-00002.0.part', images, recipe, max_bad_images=0)
    num_bytes, sha256 = join_pieces([piece.path, ...])                                   # all in the first one now

A piece is a TFRecord file of its own, for such files can simply be put one behind the other. So several processes can
work on one shard, and what it holds does not depend on how many there are.

TensorFlow is imported in the functions: the process that hands out the work does without.
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
        skipped: Name of each image that was left out, and why.
        changes: What was done to images -> to how many.
    """

    path: str
    labels: collections.Counter[int] = dataclasses.field(default_factory=collections.Counter)
    skipped: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    changes: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)


def prepare_worker() -> None:
    """Makes TensorFlow small: no GPU, and no threads beside the one that works."""
    os.environ['CUDA_VISIBLE_DEVICES'] = '-1'
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def write_piece(path: str, images: Sequence[SourceImage], recipe: Recipe, max_bad_images: int) -> Piece:
    """Writes the records of images, in their order.

    Raises:
        InputError: more than `max_bad_images` of them are unreadable; the file cannot be written.
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
    """Yields the records, and notes in `piece` what they are."""
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
    """Returns the error for the unreadable image that was one too many."""
    on_its_own = os.path.basename(image.path) == os.path.basename(image.name)
    where = image.path if on_its_own else f'{image.path}, {image.name}'
    return InputError(
        f'{where}: {why}; repair or remove this image, or allow N unreadable ones with --max_bad_images=N '
        f'(={max_bad_images})'
    )


def join_pieces(paths: Sequence[str]) -> tuple[int, str]:
    """Appends files to the first one, removing them, until it holds all and is safely on the disk.

    Returns:
        Its size in bytes and its SHA-256 in hexadecimal digits.

    Raises:
        InputError: the disk is full, or fails.
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
