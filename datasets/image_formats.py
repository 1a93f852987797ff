r"""Which format an image file has, by its first bytes.

format_of(b'\xff\xd8\xff...')       # 'JPEG'
"""

# Those that conversion reads: at which byte the first bytes of a format stand, and what they are.
SIGNATURES = {
    'JPEG': (0, b'\xff\xd8\xff'),
    'PNG': (0, b'\x89PNG\r\n\x1a\n'),
    'GIF': (0, b'GIF8'),
    'BMP': (0, b'BM'),
    'WebP': (8, b'WEBP'),
}
# Those that TensorFlow's decoder knows besides.
_OTHERS = {
    'JPEG XL': (0, b'\xff\x0a'),
    'JPEG XL in a container': (4, b'JXL '),
}


def format_of(data: bytes) -> str | None:
    """Returns the format that TensorFlow's decoder would take bytes for, or None."""
    signatures = {**SIGNATURES, **_OTHERS}
    return next((name for name, (start, first) in signatures.items() if data.startswith(first, start)), None)
