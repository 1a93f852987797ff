"""What is exported: a net with the weights of a checkpoint, and what belongs to them.

source = load_source(config)
source.model, source.weights(), source.spec
"""

import dataclasses
import os
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from configs.config import NetOptions
from configs.errors import InputError
from configs.export import ExportConfig, ExportNetOptions
from engine import checkpoints
from engine.model_spec import ModelSpec
from engine.moving_averages import ExponentialMovingAverage
from nets.variables import slim_variables


@dataclasses.dataclass(frozen=True)
class Source:
    """A net as it is exported.

    Attributes:
        checkpoint: Where it comes from.
        spec: The net, and how its images are prepared.
        model: It, with the weights: float32 images to float32 logits.
        step: After how many steps.
        averaged: Whether the weights are moving averages.
        state: Slots and averages of these weights, by name.
    """

    checkpoint: str
    spec: ModelSpec
    model: keras.Model
    step: int
    averaged: bool
    state: dict[str, np.ndarray]

    def weights(self) -> dict[str, np.ndarray]:
        """Returns the float32 variables of the net by slim's names."""
        return {name: variable.numpy() for name, variable in slim_variables(self.model).items()}

    def metadata(self) -> dict[str, Any]:
        """Returns what files say beside the weights, see `engine.checkpoints.keras_files`."""
        return {
            'model': dataclasses.asdict(self.spec),
            checkpoints.STEP_KEY: self.step,
            'moving_averages': self.averaged,
            'crc32': {name: checkpoints.crc32(value) for name, value in self.weights().items()},
        }


def load_source(config: ExportConfig) -> Source:
    """Reads the checkpoint that is to be exported.

    Raises:
        InputError: there is none, it is damaged, or of another net than the flags say.
    """
    options = config.export
    prefix = checkpoints.find_checkpoint(options.checkpoint_path)
    reader = checkpoints.open_checkpoint(prefix)
    spec = _resolve_spec(prefix, reader, config.net)
    model, averaged = spec.make_model(), bool(options.moving_average_decay)
    suffix = ExponentialMovingAverage.SUFFIX if averaged else ''
    variables = slim_variables(model)
    wanted = {name + suffix: variable.value for name, variable in variables.items()}
    checkpoints.restore(prefix, wanted, unused=variables)
    names = reader.get_variable_to_shape_map()
    state = [name for name in names if checkpoints.is_training_state(name) and not checkpoints.is_counter(name)]
    kept = [name for name in state if checkpoints.is_average(name) or not averaged]  # slots are those of raw weights
    return Source(
        checkpoint=prefix,
        spec=spec,
        model=model,
        step=checkpoints.read_int(prefix, checkpoints.STEP_KEY, max(checkpoints.checkpoint_step(prefix), 0)),
        averaged=averaged,
        state={name: checkpoints.read(reader, prefix, name) for name in kept},
    )


def _resolve_spec(prefix: str, reader: checkpoints.Reader, options: ExportNetOptions) -> ModelSpec:
    asked = {name: value for name, value in dataclasses.asdict(options).items() if value is not None}
    trained = ModelSpec.of_checkpoint(prefix)
    if trained is None:
        shapes = {name: tuple(shape) for name, shape in reader.get_variable_to_shape_map().items()}
        return _spec_from_shapes(prefix, shapes, asked)
    differing = [
        f'--{name}={value} ({getattr(trained, name)})'
        for name, value in asked.items()
        if value != getattr(trained, name)
    ]
    if differing:
        raise InputError(
            f'{prefix}: flags contradict how the net was trained (model.json): {", ".join(differing)}; leave them out'
        )
    return trained


def _spec_from_shapes(prefix: str, shapes: Mapping[str, tuple[int, ...]], asked: Mapping[str, Any]) -> ModelSpec:
    """Returns the spec of a checkpoint that comes without one, as slim's do.

    Raises:
        InputError: it is not of this net.
    """
    model_name = asked.get('model_name', NetOptions().model_name)
    names = ModelSpec.variable_names(model_name)
    head = checkpoints.head_names(names)
    absent = [name for name in (names[0], *head) if not shapes.get(name)]
    if absent:
        raise InputError(
            f'{prefix} has no {", ".join(absent)}, so it is not of {model_name}; there is no model.json in '
            f'{os.path.dirname(prefix) or "."} that would name its net: give --model_name'
        )
    return ModelSpec.for_net(
        model_name,
        num_classes=shapes[head[0]][-1],
        channels=shapes[names[0]][-2],
        preprocessing_name=asked.get('preprocessing_name'),
        image_size=asked.get('image_size'),
        depth_multiplier=asked.get('depth_multiplier', 1.0),
        labels_offset=asked.get('labels_offset', 0),
        use_grayscale=asked.get('use_grayscale', False),
        dataset_name=asked.get('dataset_name', ''),
    )
