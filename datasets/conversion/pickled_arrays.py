"""Reads the pickles of CIFAR-10's Python version without running any function that they name.

    pixels, labels = load_images(data, bytes_per_image=3072, where='cifar-10-python.tar, data_batch_1')

A pickle can call any function. These files need four, and this module substitutes its own classes for all of them:
they collect the parts of an array, so the file's content never reaches code that was not written for it.
"""

import io
import pickle
import pickletools
from typing import Any

from support.errors import InputError, first_line

_LONGEST = 300  # characters of a quoted error


def load_images(data: bytes, bytes_per_image: int, where: str) -> tuple[bytes, list[int]]:
    """Returns the pixels and labels of a pickled batch.

    Args:
        data: A pickled dict with `data`, uint8 [images, bytes_per_image], and `labels`, a list of integers.
        bytes_per_image: Number of pixels and channels.
        where: The file, for messages.

    Raises:
        InputError: The data is something else, damaged, or names other functions.
    """
    try:
        _refuse_far_memo(data)
        batch = _Unpickler(io.BytesIO(data), encoding='bytes').load()
        array, labels = (batch.get(key.encode(), batch.get(key)) for key in ('data', 'labels'))
        pixels = array.as_bytes(len(labels), bytes_per_image)
        if not all(isinstance(label, int) and 0 <= label < 256 for label in labels):
            raise ValueError('labels that are no small integers')
    except Exception as error:  # a damaged pickle may raise anything
        problem = first_line(error)[:_LONGEST]
        raise InputError(f'{where}: not a batch of CIFAR-10, or damaged: {problem}; download it again') from error
    return pixels, labels


def _refuse_far_memo(data: bytes) -> None:
    """Refuses a pickle whose memo has large numbers, since Python allocates memory up to the highest.

    Also checks that as many bytes follow as each stated length says.

    Raises:
        ValueError: The pickle has such a number or is damaged.
    """
    for number, (opcode, argument, _) in enumerate(pickletools.genops(data)):
        if number > _MAX_INSTRUCTIONS:
            raise ValueError(f'it has more than {_MAX_INSTRUCTIONS:,} instructions')
        if opcode.name in _STORES and int(argument or 0) > number + 256:  # a pickler numbers consecutively
            raise ValueError(f'it remembers something as number {argument:,}, after {number:,} instructions')


class _Array:
    """Collects the parts of a pickled array."""

    def __setstate__(self, state: tuple[int, tuple[int, ...], '_Type', bool, bytes]) -> None:
        _, self._shape, self._type, self._fortran, self._content = state

    def as_bytes(self, count: int, length: int) -> bytes:
        if self._shape != (count, length) or self._type.name != 'u1' or self._fortran:
            raise ValueError(f'its array is not uint8 [{count}, {length}], in the order of its {count} labels')
        if not isinstance(self._content, bytes) or len(self._content) != count * length:
            raise ValueError('its array has not as many bytes as its shape says')
        return self._content


class _Type:
    """Collects the parts of a pickled dtype."""

    def __init__(self, name: bytes | str, *_: object):
        self.name = name.decode('ascii') if isinstance(name, bytes) else name

    def __setstate__(self, state: object) -> None:
        pass  # byte order and fields, which a uint8 does not have


def _reconstruct(*_: object) -> _Array:
    return _Array()


def _encode(text: str, _: str) -> bytes:
    return text.encode('latin-1')  # how Python 3 pickles bytes for Python 2


_MAX_INSTRUCTIONS = 2**20  # the published files have 60,000
_STORES = ('PUT', 'BINPUT', 'LONG_BINPUT')
_ALLOWED = {
    ('numpy.core.multiarray', '_reconstruct'): _reconstruct,
    ('numpy._core.multiarray', '_reconstruct'): _reconstruct,
    ('numpy', 'ndarray'): _Array,
    ('numpy', 'dtype'): _Type,
    ('_codecs', 'encode'): _encode,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f'it calls {module}.{name}, which an array does not need')
        return _ALLOWED[module, name]
