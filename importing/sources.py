"""Sources of an import, by file extension.

source = open_source('bvlcalexnet-12.onnx')
source.layers[0].name, source.image_size, source.channels           # "node 0 (Conv 'conv1')", 224, 3
source.report(pairs, '16 tensors, 60965224 parameters', model, spec)         # lines that list the comparisons
"""

import dataclasses
import os
from collections.abc import Callable

import keras

from engine import checkpoints
from engine.checkpoints import other_formats
from engine.classifiers import description
from engine.classifiers.model_spec import ModelSpec
from importing import onnx_file, torch_weights, verification
from importing.layers import Pairs, SourceLayer
from importing.onnx_graph import read_graph
from support.errors import InputError, first_line

_WIDENED = ('none', 'float16')  # values of --quantize with weights that fit float32 exactly
_HOW_TO_SAVE = (
    'of a state_dict, in PyTorch, '
    "safetensors.torch.save_file(torch.load('{name}', weights_only=True), '{stem}.safetensors')"
)


@dataclasses.dataclass(frozen=True)
class Source:
    """A file with the weights of a net.

    Attributes:
        path: The file.
        layers: Its layers with weights.
        image_size: Side of its images; None if the file leaves it open.
        channels: Channels of its images.
        described: The description in this project's exports; None in foreign files.
        report: Compares the source with the net filled from it, given the pairs of layers and a summary of the values
            taken; returns lines that list the comparisons. Raises InputError if the net computes something else.
    """

    path: str
    layers: list[SourceLayer]
    image_size: int | None
    channels: int
    described: ModelSpec | None
    report: Callable[[Pairs, str, keras.Model, ModelSpec], list[str]]


def _open_onnx(path: str) -> Source:
    file = onnx_file.load(path)
    described, graph = _read_spec(file), read_graph(file)

    def report(pairs: Pairs, taken: str, model: keras.Model, spec: ModelSpec) -> list[str]:
        return [
            f'matched {graph.num_nodes} nodes with {spec.model_name}: {taken}',
            verification.compare_logits(file, graph, pairs, model, spec),
        ]

    return Source(path, graph.layers, graph.image_size, graph.channels, described, report)


def _read_spec(file: onnx_file.OnnxFile) -> ModelSpec | None:
    """Returns the description in this project's export; None for foreign files.

    Raises:
        InputError: The description is damaged, or the file is not a plain float32 net.
    """
    if 'model' not in file.description:
        return None
    described = description.read(f'--source={file.path}', file.description)
    spec, interface = described.spec, described.interface
    for flag, is_given in (
        ('--includes_preprocessing', interface.include_preprocessing),
        (f'--channel_order={interface.channel_order}', interface.reverses_channels(spec.make_preprocessing())),
        (f'--quantize={file.description.get("quantize")}', file.description.get('quantize', 'none') not in _WIDENED),
    ):
        if is_given:
            raise InputError(f'--source={file.path}: an export with {flag}; export the net without it')
    return spec


def _open_torch(path: str) -> Source:
    """Opens PyTorch weights, which have no graph: only names and shapes can be compared."""
    layers = torch_weights.read_layers(path)
    channels = next((layer.shapes['kernel'][1] for layer in layers if 'kernel' in layer.shapes), 3)

    def report(pairs: Pairs, taken: str, model: keras.Model, spec: ModelSpec) -> list[str]:
        names = ', '.join(f'{source.name} to {layer.name}' for source, layer in pairs)
        return [
            f'matched by shape and order: {names}',
            f'took all {taken}; without a graph, no logits were compared',
        ]

    return Source(path, layers, None, channels, None, report)


_SOURCES: dict[str, Callable[[str], Source]] = {'.onnx': _open_onnx, '.safetensors': _open_torch}
_PICKLES = ('.pth', '.pt', '.bin', '.ckpt', '.pkl', '.tar')


def open_source(path: str | None) -> Source:
    """Opens a source, by file extension.

    Raises:
        InputError: The file is missing, unreadable or of another kind.
    """
    if not path:
        raise InputError(f'--source is missing: a file that ends in {" or ".join(_SOURCES)}')
    stem, ending = os.path.splitext(path)
    if not os.path.exists(path):
        raise InputError(f'--source={path}: no such file')
    if not os.path.isfile(path):
        what = 'a folder' if os.path.isdir(path) else 'a pipe or a device'
        raise InputError(f'--source={path}: {what}, not a file that ends in {" or ".join(_SOURCES)}')
    if ending.lower() in _PICKLES:
        how = _HOW_TO_SAVE.format(name=os.path.basename(path), stem=os.path.basename(stem))
        raise InputError(f'--source={path}: a pickle, which runs code when it is read; save it as .safetensors: {how}')
    if ending.lower() not in _SOURCES:
        raise InputError(f'--source={path}: {_describe_other(path, ending.lower())}')
    return _SOURCES[ending.lower()](path)


def _describe_other(path: str, ending: str) -> str:
    """Describes a file whose extension is not supported, with the command that takes it."""
    unknown = f'unknown kind of file; its name must end in {" or ".join(_SOURCES)}'
    try:
        size = os.path.getsize(path)
        kind = checkpoints.recognise(path) if size else None
        if kind in (checkpoints.Format.WEIGHTS_H5, checkpoints.Format.KERAS):
            return _KINDS[kind]
        if kind is not None or ending in ('.index', '.meta'):
            return 'a TensorFlow checkpoint, which needs no import: --checkpoint_path takes it as it is'
        what = other_formats.describe(path) if size else unknown
    except OSError as error:
        return first_line(error)
    if what.startswith('a TFLite file'):
        return 'a TFLite file; its weights are not taken: evaluation and prediction run it'
    return unknown if what == other_formats.UNKNOWN else what


_KINDS = {
    checkpoints.Format.WEIGHTS_H5: (
        'an HDF5 file of Keras, no source: --checkpoint_path takes .weights.h5 of Keras 3 as it is; of older ones save '
        'the model as .keras first'
    ),
    checkpoints.Format.KERAS: 'a .keras file, which needs no import: --checkpoint_path takes it as it is',
}
