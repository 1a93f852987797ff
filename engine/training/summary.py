"""Prints a net's layers as a table: `train_image_classifier.py --summary`.

model = spec.make_model()
print(format_summary(model))
"""

import math

import keras

from configs.options import replace_options
from configs.training import DataOptions, TrainConfig
from datasets import dataset_factory
from datasets.dataset_factory import DATASETS, Dataset
from engine.training.setup import known_dataset, make_spec
from nets.building import zero_weights
from support.tables import format_table

_DEFAULT_DATASET = 'imagenet'


def print_summary(config: TrainConfig) -> None:
    """Prints a summary of a config's net; writes no files.

    Raises:
        InputError: training would refuse the net, its size, or the data set.
    """
    if config.data.dataset_name is None:
        config = replace_options(config, dataset_name=_DEFAULT_DATASET)
    dataset = _find_dataset(config.data)
    spec = make_spec(config.net, config.data, dataset)
    with zero_weights():  # random weights would take seconds
        model = spec.make_model()
    side, channels = spec.image_size, spec.channels
    print(f'{spec.model_name}: {side}x{side}x{channels} images, {spec.num_classes} classes ({dataset.name})')
    print(format_summary(model), flush=True)


def _find_dataset(data: DataOptions) -> Dataset:
    """Opens the data set, or describes it by its name if no folder is given."""
    name = data.dataset_name or ''
    if data.dataset_dir is None and name in DATASETS:
        return known_dataset(data, num_examples=1)
    return dataset_factory.get_dataset(name, data.dataset_dir, data.dataset_split_name, data.labels_offset)


def format_summary(model: keras.Model) -> str:
    """Returns a table with each layer's kind, output shape and number of parameters, and a line with the total."""
    rows = [_row(layer) for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)]
    table = [('layer', 'kind', 'output', 'parameters'), *rows]
    total = model.count_params()
    kept = total - sum(math.prod(variable.shape) for variable in model.trainable_variables)
    statistics = f', {kept:,} of which are moving statistics, which no gradient changes' if kept else ''
    return f'{format_table(table)}\n{total:,} parameters{statistics}'


def _row(layer: keras.Layer) -> tuple[str, ...]:
    output = 'x'.join(str(size) for size in layer.output.shape[1:])
    return layer.name, type(layer).__name__, output, f'{layer.count_params():,}'
