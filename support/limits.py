"""Limits that more than one part of the project holds to."""

# Pillow's own against decompression bombs: a file of a few KB must not take more than 256 MiB of pixels. The
# largest photographs of ILSVRC have 61 million.
MAX_PIXELS = 89_478_485

# Of the sides of an image: some preprocessings make the shorter one 256 pixels first.
MAX_SIDES_RATIO = MAX_PIXELS // 256**2
