"""The source of an export: a net with the weights of a checkpoint, its description, and the options.

source = load_source(config.export, config.net)
source.model, source.weights(), source.spec, source.interface
"""

import dataclasses
import functools
from typing import Any

import numpy as np

from configs.export import ExportNetOptions, ExportOptions
from engine import checkpoints
from engine.classifiers import description
from engine.classifiers.checkpoint import CheckpointNet, load_checkpoint, make_classifier
from engine.classifiers.classifier import Classifier
from engine.classifiers.interface import Interface
from engine.classifiers.model_spec import ModelSpec
from nets.variables import slim_variables
from preprocessing.preprocessing_factory import Preprocessing


@dataclasses.dataclass(frozen=True)
class Source(CheckpointNet):
    """A net to export, with weights.

    Attributes:
        interface: The file's layout of images and its output, where the format leaves a choice.
        options: All options of the export.
        dataset_dir: The current folder of its data set, if it moved since training; for calibration and comparison.
        state: Slots and averages of these weights, by name.
    """

    interface: Interface
    options: ExportOptions
    dataset_dir: str | None
    state: dict[str, np.ndarray]

    @functools.cached_property
    def preprocessing(self) -> Preprocessing:
        """The net's preprocessing."""
        return self.spec.make_preprocessing()

    @functools.cached_property
    def classifier(self) -> Classifier:
        """The original net, to compare with."""
        return make_classifier(self)

    def weights(self) -> dict[str, np.ndarray]:
        """Returns the float32 variables of the net by slim's names."""
        return {name: variable.numpy() for name, variable in slim_variables(self.model).items()}

    def metadata(self) -> dict[str, Any]:
        """Returns the description stored beside weights, see `engine.checkpoints.keras_files`."""
        return {**self._facts(), 'crc32': {name: checkpoints.crc32(value) for name, value in self.weights().items()}}

    def description(self) -> dict[str, Any]:
        """Returns the description stored in exported models, as JSON values, see `engine.classifiers.description`."""
        options = self.options
        are_integers = (options.format, options.quantize) == ('tflite', 'int8')
        return {
            **self._facts(),
            'format': options.format,
            'quantize': options.quantize,
            'batch_size': options.batch_size,
            'inference_type': options.inference_type if are_integers else 'float32',  # of images and results
            **description.describe(self.spec, self.interface, self.step),
        }

    def _facts(self) -> dict[str, Any]:
        return {
            'model': dataclasses.asdict(self.spec),
            checkpoints.STEP_KEY: self.step,
            'moving_averages': self.averaged,
        }


def load_source(
    options: ExportOptions, net_options: ExportNetOptions, default_layout: str = 'NHWC', is_run: bool = True
) -> Source:
    """Reads the checkpoint to export.

    Args:
        options: Options of the export.
        net_options: Overrides of the net from flags.
        default_layout: The format's own layout of images.
        is_run: Whether other programs run the format: weights alone have no temperature.

    Raises:
        InputError: The checkpoint is missing, damaged, or contradicts the flags.
    """
    checkpoint = checkpoints.Checkpoint(checkpoints.find_checkpoint(options.checkpoint_path), options.checkpoint_scope)
    net = load_checkpoint(
        checkpoint,
        net_options,
        averages=bool(options.moving_average_decay),
        temperature=options.temperature if is_run else 1.0,
    )
    state = [
        name for name in checkpoint.shapes if checkpoints.is_training_state(name) and not checkpoints.is_counter(name)
    ]
    kept = [name for name in state if checkpoints.is_average(name) or not net.averaged]  # slots belong to raw weights
    interface = Interface(
        options.layout or default_layout,
        options.channel_order or _own_order(net.spec, options.includes_preprocessing),
        options.includes_preprocessing,
        options.output,
        net.temperature,
    )
    values = {name: checkpoint.read(name) for name in kept}
    return Source(**vars(net), interface=interface, options=options, dataset_dir=net_options.dataset_dir, state=values)


def _own_order(spec: ModelSpec, include_preprocessing: bool) -> str:
    """Returns the channel order that needs no reversal: RGB for pixels, else the order of the net's input."""
    return 'RGB' if include_preprocessing else spec.make_preprocessing().normalization.channel_order
