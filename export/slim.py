"""Slim's own format: a folder that TF1 slim's eval_image_classifier.py takes as its --checkpoint_path.

Its checkpoint holds what slim's `Saver` wrote: weights, slots and averages by slim's names, and the int64 global_step.
"""

import os

import numpy as np

from engine import checkpoints
from export import verification
from export.source import Source

ENDING = ''
MEMBERS = r'checkpoint|model\.json|model\.ckpt-\d+\.(index|data-\d+-of-\d+)'


def write(source: Source, folder: str) -> None:
    """Writes `model.ckpt-<step>`, the `checkpoint` file that names it, and model.json for evaluation here."""
    os.mkdir(folder)
    checkpoints.save(folder, source.step, _tensors(source), max_to_keep=0)
    source.spec.save(folder)


def verify(source: Source, folder: str) -> list[str]:
    """Reads it back; returns lines that say what was compared."""
    prefix = checkpoints.find_checkpoint(folder)
    return [
        verification.compare_tensors(prefix, _tensors(source)),
        verification.compare_logits(source, verification.model_from(source, prefix)),
        verification.compare_spec(source, prefix),
    ]


def _tensors(source: Source) -> dict[str, np.ndarray]:
    return {**source.weights(), **source.state, checkpoints.STEP_KEY: np.asarray(source.step, np.int64)}
