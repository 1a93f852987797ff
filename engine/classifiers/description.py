"""What an export says of itself, as JSON inside its file: `Source.description` of `export/`, read again.

description = parse(path, text)
"""

import json
from typing import Any

from configs.errors import InputError, first_line

MAX_BYTES = 1 << 26  # of a million classes with their names


def parse(path: str, text: bytes) -> dict[str, Any]:
    """Returns the description in a file.

    Raises:
        InputError: it is no JSON object, or larger than MAX_BYTES.
    """
    try:
        if len(text) > MAX_BYTES:
            raise ValueError(f'more than {MAX_BYTES} bytes')
        description = json.loads(text)
        if not isinstance(description, dict):
            raise ValueError(f'a {type(description).__name__}, not an object')
    except (ValueError, RecursionError) as error:
        raise InputError(f'{path}: what it says of itself is damaged: {first_line(error)}') from error
    return description
