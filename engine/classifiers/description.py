"""The JSON description inside an exported file.

text = json.dumps({**describe(spec, interface, step), CHECKSUM: checksum(path, size)})
description = parse(path, text)
described = read(path, description)
described.spec, described.interface, described.step
"""

import dataclasses
import json
import zlib
from collections.abc import Mapping
from typing import Any

from engine import checkpoints
from engine.classifiers.interface import Interface
from engine.classifiers.model_spec import ModelSpec
from support.errors import InputError, first_line

MAX_BYTES = 1 << 26  # enough for a million classes with names
CHECKSUM = 'crc32'  # key in the description: checksum of the file up to the description

_MAX_STEP = 2**63 - 1
_PIECE = 1 << 22


@dataclasses.dataclass(frozen=True)
class Described:
    """A net as described by its file.

    Attributes:
        spec: The net and its preprocessing.
        interface: The form in which the file takes images and returns scores.
        step: The training step at which it was written.
    """

    spec: ModelSpec
    interface: Interface
    step: int


def parse(path: str, text: bytes) -> dict[str, Any]:
    """Parses the text of a description.

    Raises:
        InputError: the text is not a JSON object, or is larger than MAX_BYTES.
    """
    try:
        if len(text) > MAX_BYTES:
            raise ValueError(f'more than {MAX_BYTES} bytes')
        description = json.loads(text)
        if not isinstance(description, dict):
            raise ValueError(f'a {type(description).__name__}, not an object')
    except (ValueError, RecursionError) as error:
        raise InputError(f'{path}: its description is damaged: {first_line(error)}') from error
    return description


def damaged(path: str, where: str = '') -> InputError:
    """Returns the error for a file whose checksum differs from its description; `where` begins with a space."""
    return InputError(
        f'{path}: its checksum does not match: damaged, or changed by another program{where}; export it again'
    )


def describe(spec: ModelSpec, interface: Interface, step: int) -> dict[str, Any]:
    """Returns the part of a description that `read` parses, as JSON values."""
    return {
        'model': dataclasses.asdict(spec),
        checkpoints.STEP_KEY: step,
        'interface': dataclasses.asdict(interface),
        'normalization': dataclasses.asdict(spec.make_preprocessing().normalization),
    }


def read(path: str, description: Mapping[str, Any]) -> Described:
    """Interprets a parsed description.

    Args:
        path: The file, for messages.
        description: The result of `parse`, with a `model`.

    Raises:
        InputError: the description is damaged, from another version, or contradicts itself.
    """
    try:
        if description['model'] is None:
            raise ValueError('no net')
        spec = ModelSpec.from_json(description['model'])
        interface, step = Interface(**description['interface']), int(description[checkpoints.STEP_KEY])
        if not 0 <= step <= _MAX_STEP:
            raise ValueError(f'{checkpoints.STEP_KEY} is not from 0 to {_MAX_STEP}')
        expected = json.loads(json.dumps(dataclasses.asdict(spec.make_preprocessing().normalization)))
        if description['normalization'] != expected:
            raise ValueError(f'its normalization is not that of {spec.preprocessing_name} preprocessing')
    except (ValueError, ArithmeticError, InputError, TypeError, KeyError, AttributeError, RecursionError) as error:
        message = f'{path}: what it says of its net is damaged, or by another version: {first_line(error)}'
        raise InputError(message) from error
    return Described(spec, interface, step)


def checksum(path: str, size: int) -> int:
    """Returns the checksum of the first `size` bytes of a file."""
    value = 0
    with open(path, 'rb') as file:
        while size > 0 and (piece := file.read(min(size, _PIECE))):
            value = zlib.crc32(piece, value)
            size -= len(piece)
    return value
