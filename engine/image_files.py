"""From names to images as a net's preprocessing gives them: files, folders, globs, encoded bytes, arrays.

paths = find_images(['cat.jpg', 'photos', '*.png'])
prepared = prepare(preprocessing, [*paths, encoded_bytes, pixels])       # of each an array, or what is wrong with it
for batch in prepare_batches(preprocessing, images, 32): ...             # of any number, the next batch meanwhile

Bad images are no errors here: among thousands, one that cannot be read must not stop the others.
"""

import collections
import functools
import glob
import itertools
import os
import stat
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import tensorflow as tf

from configs.cores import usable_cores
from configs.limits import MAX_PIXELS
from datasets.conversion.encode import BadImage, encode, image_format, read_header
from datasets.conversion.files import IMAGE_SUFFIXES, is_image
from datasets.conversion.recipe import Encoding
from preprocessing import batches
from preprocessing.preprocessing_factory import Preprocessing

# A path, the bytes of an image file, or uint8 [height, width, 3], [height, width, 1] or [height, width].
Image = str | os.PathLike[str] | bytes | np.ndarray

_MAX_BYTES = 2**29  # MAX_PIXELS of four channels that are not compressed take less
_MAX_RATIO = MAX_PIXELS // 256**2  # of the sides: some preprocessings make the shorter one 256 first
_TENSORFLOWS_OWN = ('JPEG', 'PNG')  # of the others its decoders lack palettes, frames, or gray
_tracing = threading.Lock()


def find_images(names: Sequence[str]) -> list[str]:
    """Returns the paths that names stand for: themselves, the images in folders, sorted, and what globs match.

    Folders are searched to the bottom, by the endings of names and without hidden ones. `**` in a glob stands for any
    number of folders. A name that stands for nothing comes back as it is: reading it says why.
    """
    return [path for name in names for path in _find(name)]


def _find(name: str) -> list[str]:
    if os.path.isdir(name):
        return sorted(_walk(name)) or [name]
    if os.path.lexists(name) or not _is_glob(name):
        return [name]
    found = sorted(glob.glob(name, recursive=True))
    if '**' in name.split('/'):  # which has matched what lies in folders too
        return [path for path in found if not os.path.isdir(path)] or [name]
    return [path for match in found for path in _find(match)] or [name]


def _is_glob(name: str) -> bool:
    return any(character in name for character in '*?[')


def _walk(folder: str, above: tuple[tuple[int, int], ...] = ()) -> Iterator[str]:
    """Yields the images below a folder, and folders that cannot be read; links are followed, but not in circles."""
    try:
        status = os.stat(folder)
        with os.scandir(folder) as found:
            items = [item for item in found if not item.name.startswith('.')]
    except OSError:
        yield folder
        return
    identity = (status.st_dev, status.st_ino)
    for item in items if identity not in above else ():
        if item.is_dir():
            yield from _walk(item.path, (*above, identity))
        elif is_image(item.name) and (item.is_file() or item.is_symlink()):  # a pipe would never end
            yield item.path


def split_input(data: bytes) -> bytes | list[str]:
    """Returns what came through standard input: an image as it is, of a list of paths these, one a line.

    As `find -print0` gives them, they may end in zeros instead.
    """
    if _is_image_file(data):
        return data
    separator = b'\0' if data.endswith(b'\0') else b'\n'
    if not data.strip() or (b'\0' in data and separator != b'\0'):
        return data  # nothing, or nothing known, which preparing it says
    return [os.fsdecode(line.removesuffix(b'\r')) for line in data.split(separator) if line]


def _is_image_file(data: bytes) -> bool:
    try:
        image_format(data)
    except BadImage:
        return False
    return any(byte < 32 and byte not in b'\t\r\n' for byte in data[:32])  # a path may begin as one: BMW.jpg


def prepare(preprocessing: Preprocessing, images: Sequence[Image]) -> list[np.ndarray | str]:
    """Prepares images as evaluation does, on all cores.

    Returns:
        Of each image float32 [image_size, image_size, source_channels], as `preprocessing.host_eval` gives it, or what
        is wrong with it.
    """
    return next(prepare_batches(preprocessing, images, max(len(images), 1)), [])


def prepare_batches(
    preprocessing: Preprocessing, images: Iterable[Image], batch_size: int
) -> Generator[list[np.ndarray | str], None, None]:
    """Yields what `prepare` gives of each batch, while the next one is being prepared."""
    prepare_one = functools.partial(_prepare, preprocessing)
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


def _prepare(preprocessing: Preprocessing, image: Image) -> np.ndarray | str:
    try:
        if isinstance(image, np.ndarray):
            pixels = _to_channels(image, preprocessing.source_channels)
            return _compiled(preprocessing, tf.uint8)(pixels).numpy()
        data = image if isinstance(image, bytes) else _read(image)
        return _prepare_encoded(preprocessing, data)
    except BadImage as error:
        return str(error)
    except tf.errors.ResourceExhaustedError:
        return 'takes more memory than there is'


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        with open(path, 'rb') as file:
            status = os.fstat(file.fileno())
            if stat.S_ISREG(status.st_mode) and status.st_size <= _MAX_BYTES:
                return file.read()
            data = b'' if stat.S_ISREG(status.st_mode) else file.read(_MAX_BYTES + 1)  # a pipe does not say its size
    except (FileNotFoundError, ValueError) as error:  # the latter where a name has a zero in it
        raise BadImage('no file matches' if _is_glob(os.fspath(path)) else 'no such file') from error
    except IsADirectoryError as error:
        raise BadImage(_problem_of_folder(path)) from error
    except OSError as error:
        raise BadImage(f'cannot be read: {error.strerror}') from error
    if max(status.st_size, len(data)) > _MAX_BYTES:
        raise BadImage(f'more than the {_MAX_BYTES:,} bytes that are allowed')
    return data


def _problem_of_folder(path: str | os.PathLike[str]) -> str:
    try:
        os.scandir(path).close()
    except OSError as error:
        return f'cannot be read: {error.strerror}'
    return f'a folder without images ({", ".join(IMAGE_SUFFIXES)})'


def _prepare_encoded(preprocessing: Preprocessing, data: bytes) -> np.ndarray:
    """Returns an image file prepared.

    Raises:
        BadImage: what is wrong with it.
    """
    found = image_format(data)
    height, width, channels = read_header(data, found)
    _check_ratio(height, width)
    if found not in _TENSORFLOWS_OWN or (channels == 4 and preprocessing.source_channels == 1):
        data = encode(data, Encoding()).data  # as when a data set is made of it
    try:
        return _compiled(preprocessing, tf.string)(data).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise BadImage(f'a {found} that is damaged or cut short') from error


def _to_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """Returns uint8 [height, width, channels].

    Raises:
        BadImage: it is no image.
    """
    pixels = image[..., np.newaxis] if image.ndim == 2 else image
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or not pixels.size:
        message = f'{image.dtype} {list(image.shape)} is no image; uint8 [height, width, 3] or [height, width] is'
        raise BadImage(message)
    _check_ratio(*pixels.shape[:2])
    if pixels.shape[0] * pixels.shape[1] > MAX_PIXELS:
        raise BadImage(f'more than the {MAX_PIXELS:,} pixels that are allowed')
    if pixels.shape[2] > channels:
        return np.rint(batches.to_grayscale(tf.cast(pixels, tf.float32))).astype(np.uint8)
    return np.broadcast_to(pixels, (*pixels.shape[:2], channels))


def _check_ratio(height: int, width: int) -> None:
    if max(height, width) > _MAX_RATIO * max(min(height, width), 1):
        raise BadImage(f'{width} x {height} pixels: too narrow, one side may be {_MAX_RATIO} times the other')


def _compiled(preprocessing: Preprocessing, dtype: tf.DType) -> Callable[[object], tf.Tensor]:
    """Returns `host_eval` for encoded images (string) or decoded ones (uint8)."""
    with _tracing:  # once, whichever thread comes first
        return _trace(preprocessing, dtype)


@functools.lru_cache(maxsize=16)
def _trace(preprocessing: Preprocessing, dtype: tf.DType) -> Callable[[object], tf.Tensor]:
    shape = [] if dtype == tf.string else [None, None, preprocessing.source_channels]

    def host_eval(image: tf.Tensor) -> tf.Tensor:
        with tf.device('CPU:0'):
            return preprocessing.host_eval(image)

    return tf.function(host_eval, [tf.TensorSpec(shape, dtype)], autograph=False).get_concrete_function()
