"""The source of an export: a net with the weights of a checkpoint, its description, and the options.

source = load_source(config)
source.model, source.weights(), source.spec, source.interface
"""

import dataclasses
import functools
from typing import Any

import keras
import numpy as np

from configs.export import ExportConfig, ExportOptions
from engine import checkpoints
from engine.classifiers.checkpoint import CheckpointNet, load_checkpoint, make_classifier
from engine.classifiers.classifier import Classifier
from engine.classifiers.interface import Interface
from engine.classifiers.model_spec import ModelSpec
from nets.variables import slim_variables
from preprocessing.preprocessing_factory import Preprocessing


@dataclasses.dataclass(frozen=True)
class Source:
    """A net as it is exported.

    Attributes:
        net: It, with its weights.
        interface: How the file is to take images and give results, where the format leaves a choice.
        options: What else was asked for.
        dataset_dir: Where its data set lies now, if not where it was trained on; for calibration and comparison.
        state: Slots and averages of these weights, by name.
    """

    net: CheckpointNet
    interface: Interface
    options: ExportOptions
    dataset_dir: str | None
    state: dict[str, np.ndarray]

    @property
    def checkpoint(self) -> str:
        """Where it comes from."""
        return self.net.prefix

    @property
    def spec(self) -> ModelSpec:
        """The net, and how its images are prepared."""
        return self.net.spec

    @property
    def model(self) -> keras.Model:
        """It, with the weights: float32 images to float32 logits."""
        return self.net.model

    @property
    def step(self) -> int:
        """After how many steps."""
        return self.net.step

    @functools.cached_property
    def preprocessing(self) -> Preprocessing:
        """How its images are prepared."""
        return self.spec.make_preprocessing()

    @functools.cached_property
    def classifier(self) -> Classifier:
        """The net as it is trained, to compare with."""
        return make_classifier(self.net)

    def weights(self) -> dict[str, np.ndarray]:
        """Returns the float32 variables of the net by slim's names."""
        return {name: variable.numpy() for name, variable in slim_variables(self.model).items()}

    def metadata(self) -> dict[str, Any]:
        """Returns the description stored beside weights, see `engine.checkpoints.keras_files`."""
        return {**self._facts(), 'crc32': {name: checkpoints.crc32(value) for name, value in self.weights().items()}}

    def description(self) -> dict[str, Any]:
        """Returns the description stored in exported models, as JSON values, see `engine.classifiers.loading`."""
        return {
            **self._facts(),
            'format': self.options.format,
            'quantize': self.options.quantize,
            'batch_size': self.options.batch_size,
            'inference_type': self._inference_type(),
            'interface': dataclasses.asdict(self.interface),
            'normalization': dataclasses.asdict(self.preprocessing.normalization),
        }

    def _inference_type(self) -> str:
        """Returns the type of the file's images and results."""
        options = self.options
        return options.inference_type if (options.format, options.quantize) == ('tflite', 'int8') else 'float32'

    def _facts(self) -> dict[str, Any]:
        return {
            'model': dataclasses.asdict(self.spec),
            checkpoints.STEP_KEY: self.step,
            'moving_averages': self.net.averaged,
        }


def load_source(config: ExportConfig, default_layout: str = 'NHWC') -> Source:
    """Reads the checkpoint that is to be exported.

    Args:
        config: Of the export.
        default_layout: The format's own layout of images.

    Raises:
        InputError: there is none, it is damaged, or of another net than the flags say.
    """
    options, averages = config.export, bool(config.export.moving_average_decay)
    checkpoint = checkpoints.Checkpoint(checkpoints.find_checkpoint(options.checkpoint_path), options.checkpoint_scope)
    net = load_checkpoint(checkpoint, config.net, averages)
    state = [
        name for name in checkpoint.shapes if checkpoints.is_training_state(name) and not checkpoints.is_counter(name)
    ]
    kept = [name for name in state if checkpoints.is_average(name) or not net.averaged]  # slots are of raw weights
    interface = Interface(
        options.layout or default_layout,
        options.channel_order or _own_order(net.spec, options.includes_preprocessing),
        options.includes_preprocessing,
        options.output,
    )
    state_values = {name: checkpoint.read(name) for name in kept}
    return Source(net, interface, options, config.net.dataset_dir, state_values)


def _own_order(spec: ModelSpec, include_preprocessing: bool) -> str:
    """Returns the order of channels that needs nothing to be reversed: pixels are RGB, the net's input may be BGR."""
    return 'RGB' if include_preprocessing else spec.make_preprocessing().normalization.channel_order
