"""Whether a value read from JSON is of the types that are expected.

next(type_problems({'images': -1}, {'images': int}))     # 'images is -1, and must be a whole number from 0'
"""

import reprlib
from collections.abc import Iterator
from typing import Any

_TYPES = {str: 'a string', int: 'a whole number from 0', list: 'a list', dict: 'an object'}


def type_problems(value: Any, schema: Any, where: str = '') -> Iterator[str]:
    """Yields each field of `value` that is missing or not what `schema` says.

    Args:
        value: As JSON gives it.
        schema: `str`, `int` (from 0), `[of each element]`, `{key: of its value}`, or `{str: of each value}`.
        where: Which field of a larger value it is.
    """
    kind: Any = schema if isinstance(schema, type) else type(schema)
    name = where.removeprefix('.') or 'it'
    if not isinstance(value, kind) or isinstance(value, bool) or (kind is int and not 0 <= value < 2**63):
        yield f'{name} is {reprlib.repr(value)}, and must be {_TYPES[kind]}'
    elif kind is str and value != value.encode(errors='replace').decode():  # JSON can escape halves of characters
        yield f'{name} is {value!r}, which is no text'
    elif kind is list:
        for number, element in enumerate(value):
            yield from type_problems(element, schema[0], f'{where}[{number}]')
    elif kind is dict:
        fields = dict.fromkeys(value, schema[str]) if str in schema else schema
        for key, of_field in fields.items():
            if key not in value:
                yield f'{f"{where}.{key}".removeprefix(".")} is missing'
            else:
                yield from type_problems(value[key], of_field, f'{where}.{key}')
