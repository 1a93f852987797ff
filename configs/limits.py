"""Limits that more than one part of the project holds to."""

# Pillow's own against decompression bombs: a file of a few KB must not take more than 256 MiB of pixels. The
# largest photographs of ILSVRC have 61 million.
MAX_PIXELS = 89_478_485
