"""Nets to export, with weights whose results differ from image to image as those of trained nets do.

source = make_source('lenet', digits_dir, quantize='int8')
"""

from pathlib import Path
from typing import Any

import keras
import numpy as np

from configs.export import ExportOptions
from engine.classifiers.interface import Interface
from engine.classifiers.model_spec import ModelSpec
from export.source import Source
from nets import nets_factory
from preprocessing.preprocessing_factory import Preprocessing

LABELS = ('zero', 'one', 'two', 'three', 'four', 'five', 'six', 'seven', 'eight', 'nine')
NARROW = 1 / 16
_SPREAD = 2.0


def make_source(name: str, digits_dir: Path, interface: Interface | None = None, **options: Any) -> Source:
    """Returns a narrow net for the smallest images, of the data set of the digits.

    Args:
        name: Of the net.
        digits_dir: Folder of the data set, of whose images ranges are measured and results compared.
        interface: Of the file; by default what the net takes itself.
        options: Of ModelSpec, and of the export.
    """
    net = nets_factory.get_net(name)
    given = {key: options.pop(key) for key in list(options) if key in ModelSpec.__annotations__}
    spec = ModelSpec(
        **{
            'model_name': name,
            'num_classes': 10,
            'image_size': net.min_image_size,
            'channels': 3,
            'preprocessing_name': net.preprocessing,
            'depth_multiplier': NARROW,
            'labels_offset': 0,
            'use_grayscale': False,
            'dataset_name': 'digits',
            'dataset_dir': str(digits_dir),
            'label_names': LABELS,
            **given,
        }
    )
    model = spec.make_model()
    preprocessing = spec.make_preprocessing()
    _spread_results(model, preprocessing)
    interface = interface or Interface(channel_order=preprocessing.normalization.channel_order)
    return Source('/run/model.ckpt-7', spec, model, 7, False, interface, ExportOptions(**options), None, {})


def smooth_images(preprocessing: Preprocessing, count: int = 32) -> np.ndarray:
    """Returns random images as `host_eval` gives them, float32 [count, height, width, source_channels]."""
    side, channels = preprocessing.image_size, preprocessing.source_channels
    coarse = np.random.RandomState(0).uniform(0, preprocessing.host_range, (count, 4, 4, channels)).astype(np.float32)
    return coarse.repeat(-(-side // 4), 1).repeat(-(-side // 4), 2)[:, :side, :side]


def _spread_results(model: keras.Model, preprocessing: Preprocessing) -> None:
    """Makes weights that keep the size of values from layer to layer, and logits that differ between images."""
    random = np.random.RandomState(0)
    for variable in model.variables:
        if variable.name == 'kernel':
            variable.assign(random.normal(0, np.sqrt(2 / np.prod(variable.shape[:-1])), variable.shape))
        elif variable.name == 'moving_variance':
            variable.assign(random.uniform(0.5, 1.5, variable.shape))
        else:
            variable.assign(variable + random.normal(0, 0.05, variable.shape))
    logits = model(preprocessing.device_eval(smooth_images(preprocessing)), training=False).numpy()
    kernel, bias = model.variables[-2:]
    scale = _SPREAD / logits.std(axis=0).mean()
    kernel.assign(kernel * scale)
    bias.assign((bias - logits.mean(axis=0)) * scale)
