"""`temperature.json`: temperatures that calibrate the probabilities of checkpoints, beside them.

store(prefix, FittedTemperature(temperature=1.7, checkpoint='model.ckpt-1000', ...))
temperature = stored_temperature(prefix, model)      # 1.0 if there is none for these weights

Probabilities are softmax(logits / temperature). Source: Guo et al., On Calibration of Modern Neural Networks (2017).
"""

import dataclasses
import json
import os
import zlib
from typing import Any

import keras
import numpy as np
from absl import logging

from configs.foreign import HIGHEST_TEMPERATURE, LOWEST_TEMPERATURE
from datasets.text_files import load_json, write_text
from engine import checkpoints
from nets.variables import slim_variables

FILE_NAME = 'temperature.json'


@dataclasses.dataclass(frozen=True)
class FittedTemperature:
    """A temperature, the weights that it belongs to, and the examples that it was fitted on.

    Attributes:
        temperature: From `LOWEST_TEMPERATURE` to `HIGHEST_TEMPERATURE`.
        checkpoint: Name of the checkpoint in its folder.
        step: Its training step; -1 if unknown.
        moving_averages: Whether it is for the checkpoint's moving averages.
        weights_crc32: Checksum of the weights or averages, as another run may write a checkpoint of the same name.
        dataset_name: The data set.
        dataset_split_name: Its split.
        num_examples: Number of examples.
        cross_entropy_before, cross_entropy_after: Mean over the examples at temperature 1, and at this one.
        ece_before, ece_after: Expected calibration error.
    """

    temperature: float
    checkpoint: str
    step: int
    moving_averages: bool
    weights_crc32: int
    dataset_name: str
    dataset_split_name: str
    num_examples: int
    cross_entropy_before: float
    cross_entropy_after: float
    ece_before: float
    ece_after: float


def path_beside(prefix: str) -> str:
    """Returns the path of temperature.json in a checkpoint's folder."""
    return os.path.join(os.path.dirname(prefix), FILE_NAME)


def load(prefix: str) -> list[FittedTemperature]:
    """Reads the temperatures stored in a checkpoint's folder; none if the file is missing.

    Raises:
        InputError: the file is damaged.
    """
    return load_json(path_beside(prefix), _from_json, 'delete it, and fit again') or []


def _from_json(values: Any) -> list[FittedTemperature]:
    fitted = [FittedTemperature(**each) for each in values]
    for each in fitted:
        if not LOWEST_TEMPERATURE <= each.temperature <= HIGHEST_TEMPERATURE:
            raise ValueError(f'temperature is {each.temperature!r}, not {LOWEST_TEMPERATURE} to {HIGHEST_TEMPERATURE}')
    return fitted


def store(prefix: str, fitted: FittedTemperature) -> None:
    """Writes a temperature atomically; keeps those of other checkpoints that are still in the folder.

    Raises:
        InputError: the file is damaged.
        OSError or tf.errors.OpError: it cannot be written.
    """
    folder = os.path.dirname(prefix)
    kept = [
        each
        for each in load(prefix)
        if (each.checkpoint, each.moving_averages) != (fitted.checkpoint, fitted.moving_averages)
        and checkpoints.recognise(os.path.join(folder, each.checkpoint)) is not None
    ]
    values = [dataclasses.asdict(each) for each in (*kept, fitted)]
    write_text(path_beside(prefix), json.dumps(values, indent=1) + '\n')


def stored_temperature(prefix: str, model: keras.Model) -> float:
    """Returns the temperature stored for a net's weights, or 1; logs it if the folder has any temperature.

    Args:
        prefix: The checkpoint.
        model: The net, with the checkpoint's weights or moving averages.

    Raises:
        InputError: the file is damaged.
    """
    stored = load(prefix)
    if not stored:
        return 1.0
    checksum = weights_crc32(model)
    for each in stored:
        if each.weights_crc32 == checksum:
            logging.info(
                'probabilities of %s are calibrated with temperature %.4g, fitted on %s, split %s; --temperature=1 '
                'leaves them as they are',
                *(prefix, each.temperature, each.dataset_name, each.dataset_split_name),
            )
            return each.temperature
    logging.info(
        '%s has no temperature for these weights of %s (it has those of %s): probabilities are not calibrated',
        *(path_beside(prefix), prefix, ', '.join(map(_describe, stored))),
    )
    return 1.0


def _describe(fitted: FittedTemperature) -> str:
    return f'the moving averages of {fitted.checkpoint}' if fitted.moving_averages else fitted.checkpoint


def weights_crc32(model: keras.Model) -> int:
    """Returns a checksum of a net's weights."""
    value = 0
    for variable in slim_variables(model).values():
        value = zlib.crc32(np.ascontiguousarray(variable.numpy()).data, value)
    return value
