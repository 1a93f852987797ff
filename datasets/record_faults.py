r"""Describes faults in TFRecord files, records and their images.

compression_of(b'\x1f\x8b\x08...')                          # 'GZIP'
problem_of(record, tfrecord.SLIM_SCHEMA)                    # 'has no key image/encoded; its keys are ...'
not_an_image(pixels, {'image/format': b'raw'})              # '6,000 bytes of raw pixels; ...'

TensorFlow's errors name neither key nor type. Used only after a failure.
"""

import base64
import binascii
import math
import re
import reprlib
import zlib
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import tensorflow as tf
from google.protobuf.message import DecodeError

if TYPE_CHECKING:
    from datasets.tfrecord import Schema

# Formats that conversion reads: offset and value of their first bytes.
SIGNATURES = {
    'JPEG': (0, b'\xff\xd8\xff'),
    'PNG': (0, b'\x89PNG\r\n\x1a\n'),
    'GIF': (0, b'GIF8'),
    'BMP': (0, b'BM'),
    'WebP': (8, b'WEBP'),
}
# Further formats that TensorFlow's decoder reads.
_MORE_SIGNATURES = {
    'JPEG XL': (0, b'\xff\x0a'),
    'JPEG XL in a container': (4, b'JXL '),
}
_MOST_KEYS = 12
_TYPES = {'bytes_list': 'bytes', 'float_list': 'float', 'int64_list': 'int64'}
_SIDES = ('ymin', 'xmin', 'ymax', 'xmax')
_OTHER_FORMATS = {
    'TIFF': re.compile(rb'II\*\0|MM\0\*'),
    'HEIC or AVIF': re.compile(rb'....ftyp(hei|hev|mif|avi)', re.DOTALL),
    'PDF': re.compile(rb'%PDF'),
    'SVG': re.compile(rb'\s*<(\?xml|svg)'),
    'NumPy array (.npy)': re.compile(rb'\x93NUMPY'),
    'GZIP-compressed file': re.compile(rb'\x1f\x8b'),
}
_BASE64 = re.compile(rb'(data:image/[\w.+-]+;base64,)?([A-Za-z0-9+/_\s-]+)=*\s*')


def compression_of(start: bytes) -> str | None:
    """Returns 'GZIP' or 'ZLIB' if a file that starts with these bytes is compressed, else None."""
    if start[:2] == b'\x1f\x8b':
        name, bits = 'GZIP', 16 + zlib.MAX_WBITS
    elif len(start) > 1 and start[0] & 15 == 8 and (start[0] << 8 | start[1]) % 31 == 0:
        name, bits = 'ZLIB', zlib.MAX_WBITS
    else:
        return None
    try:
        content = zlib.decompressobj(bits).decompress(start, 64)
    except zlib.error:
        return None
    return name if content else None


def format_of(data: bytes) -> str | None:
    """Returns the image format that TensorFlow's decoder would recognise, or None."""
    signatures = {**SIGNATURES, **_MORE_SIGNATURES}
    return next((name for name, (start, first) in signatures.items() if data.startswith(first, start)), None)


def problem_of(record: bytes, schema: 'Schema') -> str | None:
    """Returns the fault in the keys or values of a record, or None if they match `schema`.

    Args:
        record: The serialized record.
        schema: The expected keys.
    """
    try:
        features = tf.train.Example.FromString(record).features.feature
    except DecodeError:
        return (
            f'not a tf.train.Example, but {len(record):,} bytes like {record[:12]!r}; write the records as '
            'tf.train.Example, or convert the images with download_and_convert_data.py'
        )
    problem = next(_problems(features, schema), None)
    if problem is None:
        return None
    return '; '.join([problem, _present(features), *_advice(features, schema)])


def _problems(features: Mapping[str, Any], schema: 'Schema') -> Iterator[str]:
    for key, kind in ((schema.image, 'bytes'), (schema.label, 'int64')):
        found, values = _values(features, key)
        if found is None:
            yield f'has no key {key}'
        elif found != kind:
            yield f'{key} holds {found} ({reprlib.repr(values[0]) if values else "no value"}), and must hold one {kind}'
        elif len(values) != 1:
            yield f'{key} holds {len(values) or "no"} values, and must hold one {kind}'
        elif kind == 'bytes' and not values[0]:
            yield f'{key} is empty'
    if schema.boxes is not None:
        yield from _box_problems(features, schema.boxes)


def _box_problems(features: Mapping[str, Any], prefix: str) -> Iterator[str]:
    counts = {}
    for side in _SIDES:
        found, values = _values(features, prefix + side)
        if found not in (None, 'float'):
            yield f'{prefix}{side} holds {found}, and must hold floats'
        counts[side] = len(values)
    if len(set(counts.values())) > 1:
        listed = ', '.join(f'{count} {side}' for side, count in counts.items())
        yield f'{prefix} holds {listed}, and must hold all four of each box'


def _values(features: Mapping[str, Any], key: str) -> tuple[str | None, Any]:
    """Returns the type and values of a key; the type is None if the key is missing or empty."""
    kind = features[key].WhichOneof('kind') if key in features else None
    return (None, ()) if kind is None else (_TYPES[kind], getattr(features[key], kind).value)


def _present(features: Mapping[str, Any]) -> str:
    if not features:
        return 'it has no keys at all'
    keys = sorted(features)
    listed = ', '.join(f'{reprlib.repr(key)[1:-1]} ({_values(features, key)[0]})' for key in keys[:_MOST_KEYS])
    return f'its keys are {listed}{" ..." if len(keys) > _MOST_KEYS else ""}'


def _advice(features: Mapping[str, Any], schema: 'Schema') -> Iterator[str]:
    """Yields the flag that would read the records, if it can be inferred."""
    if not features or not schema.is_slims:
        return
    image = _candidate(features, schema.image, 'bytes', lambda value: format_of(value) is not None)
    label = _candidate(features, schema.label, 'int64', lambda _: True)
    named = [f'{part}={key}' for part, key, own in (('image', image, schema.image), ('label', label, schema.label))
             if key != own]  # fmt: skip
    if image and label and named:
        yield f'read them with --record_keys={",".join(named)}'
    else:
        yield 'write the records so, or name other keys by --record_keys=image=KEY,label=KEY'


def _candidate(features: Mapping[str, Any], key: str, kind: str, is_one: Any) -> str | None:
    """Returns `key` if it has a suitable value, else the only other key that has one, else None."""

    def holds(name: str) -> bool:
        found, values = _values(features, name)
        return found == kind and len(values) == 1 and is_one(values[0])

    found = [name for name in sorted(features) if holds(name)]
    if key in found:
        return key
    named = [name for name in found if kind == 'int64' and re.search('label|class', name)]
    chosen = found if len(found) == 1 else named
    return chosen[0] if len(chosen) == 1 and ',' not in chosen[0] else None


def not_an_image(data: bytes, others: Mapping[str, Any] | None = None) -> str | None:
    """Describes bytes that are no image file, with advice; None if unknown.

    Args:
        data: The bytes.
        others: Other values of the record by key, those that occur once: sides and format help.
    """
    if format_of(data) is not None:
        return None
    if (inner := _format_in_base64(data)) is not None:
        return f'base64 text of a {inner}; write the bytes themselves, as base64.b64decode gives them'
    for name, pattern in _OTHER_FORMATS.items():
        if pattern.match(data):
            return f'a {name}, which is not read; write a JPEG or PNG'
    if (why := _why_raw(data, others or {})) is not None:
        return (
            f'{len(data):,} bytes of raw pixels ({why}), and must be an image file; encode them, as with '
            'tf.io.encode_png'
        )
    return None


def _format_in_base64(data: bytes) -> str | None:
    match = _BASE64.fullmatch(data[:4096])
    if match is None:
        return None
    text = re.sub(rb'\s', b'', match[2]).translate(bytes.maketrans(b'-_', b'+/'))
    try:
        return format_of(base64.b64decode(text[: len(text) // 4 * 4]))
    except binascii.Error:
        return None


def _why_raw(data: bytes, others: Mapping[str, Any]) -> str | None:
    for key, value in others.items():
        if key.lower().endswith('format') and isinstance(value, bytes) and value.lower() in (b'raw', b'rgb', b'bgr'):
            return f'{key} is {value.decode()}'
    sides = {
        side: value
        for side in ('height', 'width')
        for key, value in others.items()
        if key.lower().endswith(side) and isinstance(value, int)
    }
    if len(sides) == 2:
        for channels in (1, 3, 4):
            if math.prod(sides.values()) * channels == len(data) > 0:
                return f'{sides["height"]} x {sides["width"]} x {channels}'
    for channels in (3, 1):
        side = math.isqrt(len(data) // channels)
        if side >= 8 and side * side * channels == len(data):
            return f'as many as {side} x {side} x {channels} would be'
    return None


def single_values(record: bytes) -> dict[str, Any]:
    """Returns the values of all keys of a record that hold exactly one; {} if it is not a record."""
    try:
        features = tf.train.Example.FromString(record).features.feature
    except DecodeError:
        return {}
    found = {key: _values(features, key)[1] for key in features}
    return {key: values[0] for key, values in found.items() if len(values) == 1}
