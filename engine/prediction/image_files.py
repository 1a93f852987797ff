"""Finds images in files, folders and globs, and prepares files, encoded bytes and arrays for a net.

paths = find_images(['cat.jpg', 'photos', '*.png'])
prepared = prepare(preprocessing, [*paths, encoded_bytes, pixels])       # for each an array, or an error text
for batch in prepare_batches(preprocessing, images, 32): ...             # any number, prefetching the next batch

A bad image raises no exception: among thousands, an unreadable one must not stop the others.
"""

import codecs
import collections
import functools
import glob
import itertools
import os
import stat
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import tensorflow as tf

from datasets.conversion.encode import BadImage, check_sides, encode, image_format, read_header
from datasets.conversion.recipe import Encoding
from datasets.files import IMAGE_SUFFIXES, LeftOut, is_image, is_of_system, problem_of, walk
from datasets.orientation import read_orientation, turn
from preprocessing import batches
from preprocessing import images as image_operations
from preprocessing.preprocessing_factory import Preprocessing
from support.input_files import is_named_pipe
from support.processor import usable_cores

# A path, the bytes of an image file, or uint8 [height, width, 3], [height, width, 1] or [height, width].
Image = str | os.PathLike[str] | bytes | np.ndarray

_MAX_BYTES = 2**29  # more than MAX_PIXELS take in four uncompressed channels
_TENSORFLOWS_OWN = ('JPEG', 'PNG')  # for other formats, TensorFlow's decoders lack palettes, frames, or gray
_tracing = threading.Lock()


def find_images(names: Sequence[str], left_out: LeftOut | None = None) -> list[str]:
    """Resolves names of files, folders and globs to paths of images; the images of a folder are sorted.

    Folders are searched recursively by name endings, without hidden and system folders; `left_out` counts other files.
    `**` in a glob matches any number of folders. A name without a match, and an unreadable part of a folder, are
    returned as they are: reading them reports the error.
    """
    counts = left_out or LeftOut()
    return [path for name in names for path in _find(name, counts)]


def _find(name: str, left_out: LeftOut) -> list[str]:
    if os.path.isdir(name):
        return _images_below(name, left_out) or [name]
    if os.path.lexists(name) or not _is_glob(name):
        return [name]
    found = sorted(path for path in glob.glob(name, recursive=True) if not _is_in_system_folder(path, name))
    if '**' in name.split('/'):  # it has also matched the content of folders
        return [path for path in found if not os.path.isdir(path)] or [name]
    return [path for match in found for path in _find(match, left_out)] or [name]


def _is_glob(name: str) -> bool:
    return any(character in name for character in '*?[')


def _is_in_system_folder(path: str, pattern: str) -> bool:
    """Returns whether a path has a part that is a system folder, unless the pattern names it."""
    matched = set(path.split('/')) - set(pattern.split('/'))
    return any(is_of_system(part) and not part.startswith('.') for part in matched)


def _images_below(folder: str, left_out: LeftOut) -> list[str]:
    """Returns the images below a folder, and unreadable paths; cyclic links are not followed."""
    paths: list[str] = []
    for item in walk(folder, left_out, lambda path, error: paths.append(path) if error else None):
        if is_image(item.name):
            paths.append(item.path)
        else:
            left_out.add_files([item.name])
    return sorted(paths)


def split_input(data: bytes) -> bytes | list[str]:
    """Interprets standard input: returns it unchanged if it is an image, else the paths in it, one per line.

    Paths may also be separated by zero bytes, as written by `find -print0`.
    """
    if _is_image_file(data):
        return data
    separator = b'\0' if data.endswith(b'\0') else b'\n'
    if not data.strip() or (b'\0' in data and separator != b'\0'):
        return data  # empty or unknown: `prepare` reports the error
    lines = data.removeprefix(codecs.BOM_UTF8).split(separator)
    return [os.fsdecode(name) for line in lines if (name := line.removesuffix(b'\r'))]


def _is_image_file(data: bytes) -> bool:
    try:
        image_format(data)
    except BadImage:
        return False
    return any(byte < 32 and byte not in b'\t\r\n' for byte in data[:32])  # a path may begin like an image: BMW.jpg


def prepare(
    preprocessing: Preprocessing, images: Sequence[Image], *, apply_exif_orientation: bool = True
) -> list[np.ndarray | str]:
    """Prepares images as in evaluation, on all cores.

    Args:
        preprocessing: The net's preprocessing.
        images: Paths, bytes of image files, or pixels.
        apply_exif_orientation: Whether to rotate images by their EXIF orientation; training and evaluation do not.

    Returns:
        For each image float32 [image_size, image_size, source_channels] from `preprocessing.host_eval`, or an error
        text.
    """
    batches = prepare_batches(preprocessing, images, max(len(images), 1), apply_exif_orientation=apply_exif_orientation)
    return next(batches, [])


def prepare_batches(
    preprocessing: Preprocessing,
    images: Iterable[Image],
    batch_size: int,
    *,
    apply_exif_orientation: bool = True,
) -> Generator[list[np.ndarray | str], None, None]:
    """Yields the result of `prepare` for each batch, while the next one is being prepared."""
    prepare_one = functools.partial(_prepare, preprocessing, apply_exif_orientation)
    waiting = iter(images)
    threads = ThreadPoolExecutor(min(usable_cores(), 16, batch_size))

    def begin() -> list[Future[np.ndarray | str]]:
        return [threads.submit(prepare_one, image) for image in itertools.islice(waiting, batch_size)]

    try:
        begun = collections.deque([begin(), begin()])
        while begun[0]:
            yield [future.result() for future in begun.popleft()]
            begun.append(begin())
    finally:
        threads.shutdown(cancel_futures=True)


def _prepare(preprocessing: Preprocessing, turns: bool, image: Image) -> np.ndarray | str:
    try:
        if isinstance(image, np.ndarray):
            pixels = _to_channels(image, preprocessing.source_channels)
            return _compiled(preprocessing, tf.uint8)(pixels).numpy()
        data = image if isinstance(image, bytes) else _read(image)
        return _prepare_encoded(preprocessing, data, turns)
    except BadImage as error:
        return str(error)
    except tf.errors.ResourceExhaustedError:
        return 'takes more memory than there is'


def _read(path: str | os.PathLike[str]) -> bytes:
    if is_named_pipe(path):
        raise BadImage('is a pipe; must be a regular file')
    try:
        with open(path, 'rb') as file:
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode) and status.st_size <= _MAX_BYTES:
                return file.read()
            data = b'' if stat.S_ISREG(status.st_mode) else file.read(_MAX_BYTES + 1)  # a pipe has no known size
    except (FileNotFoundError, ValueError) as error:  # ValueError: a zero byte in the name
        raise BadImage('no file matches' if _is_glob(os.fspath(path)) else 'no such file') from error
    except IsADirectoryError as error:
        raise BadImage(_problem_of_folder(path)) from error
    except OSError as error:
        raise BadImage(problem_of(error)) from error
    if max(status.st_size, len(data)) > _MAX_BYTES:
        raise BadImage(f'more than the {_MAX_BYTES:,} bytes allowed')
    return data


def _problem_of_folder(path: str | os.PathLike[str]) -> str:
    try:
        os.scandir(path).close()
    except OSError as error:
        return problem_of(error)
    return f'a folder without images ({", ".join(IMAGE_SUFFIXES)})'


def _prepare_encoded(preprocessing: Preprocessing, data: bytes, turns: bool) -> np.ndarray:
    """Prepares the bytes of an image file.

    Raises:
        BadImage: the file is damaged, too large, or not an image.
    """
    found = image_format(data)
    channels = read_header(data, found)[2]
    orientation = read_orientation(data) if turns else 1
    if found not in _TENSORFLOWS_OWN or (channels == 4 and preprocessing.source_channels == 1):
        data = encode(data, Encoding()).data  # as in the conversion of data sets
    try:
        if orientation == 1:
            return _compiled(preprocessing, tf.string)(data).numpy()
        pixels = image_operations.decode(data, preprocessing.source_channels).numpy()
        return _compiled(preprocessing, tf.uint8)(turn(pixels, orientation)).numpy()
    except tf.errors.InvalidArgumentError as error:
        if image_operations.TOO_LARGE_RESIZED in str(error):
            raise BadImage(image_operations.TOO_LARGE_RESIZED) from error
        raise BadImage(f'a {found} that is damaged or cut short') from error


def _to_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """Converts pixels to uint8 [height, width, channels].

    Raises:
        BadImage: the array is not a uint8 image with 1 or 3 channels.
    """
    pixels = image[..., np.newaxis] if image.ndim == 2 else image
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or not pixels.size:
        message = f'{image.dtype} {list(image.shape)} is no image; uint8 [height, width, 3] or [height, width] is'
        raise BadImage(message)
    check_sides(*pixels.shape[:2])
    if pixels.shape[2] > channels:
        return np.rint(batches.to_grayscale(tf.cast(pixels, tf.float32))).astype(np.uint8)
    return np.broadcast_to(pixels, (*pixels.shape[:2], channels))


def _compiled(preprocessing: Preprocessing, dtype: tf.DType) -> Callable[[object], tf.Tensor]:
    """Returns `host_eval`, compiled for encoded images (string) or decoded ones (uint8)."""
    with _tracing:  # traces once, even if several threads call
        return _trace(preprocessing, dtype)


@functools.lru_cache(maxsize=16)
def _trace(preprocessing: Preprocessing, dtype: tf.DType) -> Callable[[object], tf.Tensor]:
    shape = [] if dtype == tf.string else [None, None, preprocessing.source_channels]

    def host_eval(image: tf.Tensor) -> tf.Tensor:
        with tf.device('CPU:0'):
            return preprocessing.host_eval(image)

    return tf.function(host_eval, [tf.TensorSpec(shape, dtype)], autograph=False).get_concrete_function()
