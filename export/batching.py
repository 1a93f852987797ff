"""Batches of one size, as files take them that were exported with `--batch_size`.

for numbers in batches_of(len(images), 8):
    run(images[numbers])
"""

import numpy as np


def batches_of(count: int, size: int) -> list[np.ndarray]:
    """Returns the numbers from 0 to `count` in batches of `size`; the last is filled up from 0 on again."""
    return [np.arange(first, first + size) % count for first in range(0, count, size)]
