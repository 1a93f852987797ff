"""The figures of a benchmark, computed from blocks of batches, and their table.

figures = summarize([Block(images=320, seconds=0.4, cpu_seconds=0.7)])
figures['images_per_second']        # {'median': 800.0, 'low': 800.0, 'high': 800.0}
"""

import dataclasses
import resource
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

Figures = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Block:
    """Time and traffic of a block of batches.

    Attributes:
        images: Number of images.
        seconds: Wall-clock time.
        cpu_seconds: CPU time of all threads of this process.
        waited: Seconds in which the step waited for the input pipeline, or None if it is not measured.
        communicated: Seconds in which the step waited for the sum of the gradients.
        bytes_sent: Bytes sent by this machine in this time.
    """

    images: int
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    waited: float | None = None
    communicated: float = 0.0
    bytes_sent: int = 0


def summarize(blocks: Sequence[Block]) -> Figures:
    """Returns median, low and high speed of the blocks, and the waiting share over all blocks."""
    seconds = sum(block.seconds for block in blocks)
    waited = [block.waited for block in blocks if block.waited is not None]
    return {
        'images_per_second': _spread([block.images / block.seconds for block in blocks]),
        'images_per_cpu_second': _spread([block.images / block.cpu_seconds for block in blocks]),
        'waiting_share': round(sum(waited) / seconds, 4) if waited else None,
        'images': sum(block.images for block in blocks),
        'seconds': round(seconds, 3),
    }


def _spread(values: list[float]) -> dict[str, float]:
    return {
        'median': round(float(np.median(values)), 2),
        'low': round(min(values), 2),
        'high': round(max(values), 2),
    }


def peak_rss_mib() -> int:
    """Returns this process's peak resident memory so far, in MiB."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / 2**20 if sys.platform == 'darwin' else peak / 2**10)


def format_table(figures: Figures) -> str:
    """Returns the figures as text: a heading, then one quantity per line."""
    share = figures['waiting_share']
    rows = [
        ('images/s', _format_spread(figures['images_per_second'])),
        ('images/s per CPU-second', _format_spread(figures['images_per_cpu_second'])),
        ('waiting for input', '-' if share is None else f'{share:.1%}'),
        ('peak RSS', f'{figures["peak_rss_mib"]} MiB'),
        ('time to first batch', f'{figures["seconds_to_first_batch"]:.1f} s'),
    ]
    communication = figures.get('communication_share')
    if communication is not None:
        rows.append(('reducing gradients', f'{communication:.1%}'))
    if figures.get('bytes_per_step_sent'):
        sent, expected = (figures[f'bytes_per_step_{kind}'] / 1e6 for kind in ('sent', 'expected'))
        rows.append(('sent by each worker', f'{sent:.1f} MB a step (gradients in a ring: {expected:.1f})'))
    heading = (
        f'{figures["mode"]}: {figures["model_name"]}, {figures["image_size"]} px, {figures["preprocessing_name"]} '
        f'preprocessing, {figures["dataset_name"]}, batches of {figures["batch_size"]} on {figures["replicas"]} x '
        f'{figures["devices"][0].rsplit("device:", 1)[-1]}'
    )
    return '\n'.join([heading, *(f'  {name:25}{value}' for name, value in rows)])


def _format_spread(values: dict[str, float]) -> str:
    return f'{values["median"]:.1f}  (blocks: {values["low"]:.1f} to {values["high"]:.1f})'
