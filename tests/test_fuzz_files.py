"""Files with random damage: every parser of what people bring refuses them in one line, or takes them; nothing else.

A new parser joins `PARSERS`: what makes a good file, and what reads one.
"""

import dataclasses
import json
import os
import random
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from configs.foreign import NetOverrides
from engine import checkpoints
from engine.checkpoints import files, other_formats
from engine.classifiers import description, load_classifier
from engine.classifiers.interface import Interface
from engine.classifiers.label_names import read_label_names
from engine.classifiers.model_spec import ModelSpec
from engine.classifiers.saved_model_operators import refuse_unknown
from nets.variables import slim_variables
from support.errors import InputError
from tests.runs import tiny_spec
from tests.test_fuzz_data import damaged

MUTATIONS = 150
ASKED = NetOverrides(preprocessing_name='lenet', image_size=8)
pytestmark = pytest.mark.filterwarnings(
    'ignore:__array__ implementation:DeprecationWarning'
)  # Keras, saving tf.Variable


SPEC = tiny_spec(num_classes=4, channels=1)


@dataclasses.dataclass(frozen=True)
class Parser:
    """How a kind of file is made and read.

    Attributes:
        make: Writes good ones into a folder; returns the one that is damaged.
        read: Reads it.
        mutations: How many damaged ones are read.
        needs: A package without which it is skipped.
        refuses: Whether some damage is refused; else there is another way, or another name for it.
    """

    make: Callable[[Path], Path]
    read: Callable[[str], object]
    mutations: int = MUTATIONS
    needs: str = 'tensorflow'
    refuses: bool = True


def export(folder: Path, kind: str) -> Path:
    from configs.export import ExportOptions
    from configs.names import EXPORT_ENDINGS
    from export.export_factory import FORMATS
    from export.source import Source

    interface = Interface(layout='NCHW' if kind == 'onnx' else 'NHWC')
    of_net = ('/run/model.ckpt-7', SPEC, SPEC.make_model(), 7, False)
    source = Source(*of_net, interface, ExportOptions(format=kind), None, {})
    path = folder / f'net{EXPORT_ENDINGS[kind]}'
    FORMATS[kind].write(source, str(path))
    return path


def foreign_onnx(folder: Path) -> Path:
    import onnx

    path = export(folder, 'onnx')
    model = onnx.load(path)
    kept = [entry for entry in model.metadata_props if entry.key != 'slim.json']
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    onnx.save(model, path)
    return path


def foreign_tflite(folder: Path) -> Path:
    path = folder / 'net.tflite'
    run = tf.function(
        lambda x: tf.nn.relu(tf.reduce_mean(x, [1, 2])), [tf.TensorSpec([1, 8, 8, 3], tf.float32)], autograph=False
    )
    path.write_bytes(tf.lite.TFLiteConverter.from_concrete_functions([run.get_concrete_function()], run).convert())
    return path


def safetensors(folder: Path) -> Path:
    header = {'fc.weight': {'dtype': 'F32', 'shape': [2, 3], 'data_offsets': [0, 24]}}
    text = json.dumps(header).encode()
    path = folder / 'net.safetensors'
    path.write_bytes(struct.pack('<Q', len(text)) + text + np.arange(6, dtype=np.float32).tobytes())
    return path


def state_file(folder: Path) -> Path:
    checkpoints.save(str(folder), 3, {'a': tf.ones([2])}, 5)
    checkpoints.save(str(folder), 7, {'a': tf.ones([2])}, 5)
    return folder / 'checkpoint'


def checkpoint(folder: Path, suffix: str) -> Path:
    variables = {name: variable.value for name, variable in slim_variables(SPEC.make_model()).items()}
    return Path(checkpoints.save(str(folder), 3, variables, 5) + suffix)


def labels(folder: Path) -> Path:
    (folder / 'labels').write_text(json.dumps({str(i): [f'n0144076{i}', f'name {i}'] for i in range(4)}))
    return folder / 'labels'


def python_labels(folder: Path) -> Path:
    (folder / 'labels').write_text(repr({i: f'name {i}' for i in range(4)}))
    return folder / 'labels'


def model_json(folder: Path) -> Path:
    SPEC.save(str(folder))
    return folder / 'model.json'


def described(folder: Path) -> Path:
    path = folder / 'slim.json'
    with open(export(folder, 'saved_model') / 'assets.extra/slim.json') as file:
        path.write_text(file.read())
    return path


def saved_model(folder: Path) -> Path:
    return export(folder, 'saved_model') / 'saved_model.pb'


def read_everything(path: str) -> None:
    checkpoint = checkpoints.Checkpoint(path)
    for name in checkpoint.shapes:
        checkpoint.read(name)


def read_state(path: str) -> None:
    folder = os.path.dirname(path)
    checkpoints.find_checkpoint(folder)
    files.read_rotation(folder)


def read_source(path: str) -> None:
    from configs.importing import ImportNetOptions
    from importing.description import describe
    from importing.layers import pair, sketch_layers
    from importing.sources import open_source

    source = open_source(path)
    spec = dataclasses.replace(SPEC, image_size=describe(ImportNetOptions(), 'lenet', source).image_size)
    pair(source.layers, sketch_layers(spec.make_model), path, 'lenet')


def read_description(path: str) -> None:
    with open(path, 'rb') as file:
        description.read(path, description.parse(path, file.read()))


PARSERS: dict[str, Parser] = {
    'ONNX export': Parser(lambda folder: export(folder, 'onnx'), load_classifier, needs='onnxruntime'),
    'ONNX of others': Parser(foreign_onnx, lambda path: load_classifier(path, ASKED), needs='onnxruntime'),
    'ONNX as a source': Parser(foreign_onnx, read_source, 60, needs='onnx'),
    'ONNX export as a source': Parser(lambda folder: export(folder, 'onnx'), read_source, needs='onnx'),
    'TFLite export': Parser(lambda folder: export(folder, 'tflite'), load_classifier, 30, needs='ai_edge_litert'),
    'TFLite of others': Parser(foreign_tflite, lambda path: load_classifier(path, ASKED), 12, needs='ai_edge_litert'),
    'safetensors': Parser(safetensors, read_source, needs='safetensors'),
    'keras': Parser(lambda folder: export(folder, 'keras'), read_everything),
    'weights.h5': Parser(lambda folder: export(folder, 'weights.h5'), read_everything),
    'state file': Parser(state_file, read_state, refuses=False),
    'index': Parser(lambda folder: checkpoint(folder, '.index'), lambda path: read_everything(path[: -len('.index')])),
    'graph of a SavedModel': Parser(saved_model, lambda path: refuse_unknown(os.path.dirname(path))),
    'description': Parser(described, read_description),
    'model.json': Parser(model_json, lambda path: ModelSpec.load(os.path.dirname(path))),
    'JSON of labels': Parser(labels, lambda path: read_label_names(path, 4, 0)),
    'dict of labels': Parser(python_labels, lambda path: read_label_names(path, 4, 0)),
    'unknown': Parser(foreign_tflite, other_formats.describe, needs='ai_edge_litert', refuses=False),
}


@pytest.mark.quick('[!T]*', 'TFLite of others')
@pytest.mark.parametrize('kind', PARSERS)
def test_damage_is_refused_or_taken(tmp_path: Path, kind: str) -> None:
    parser = PARSERS[kind]
    pytest.importorskip(parser.needs, reason='the extra `export` is not installed')
    path = parser.make(tmp_path)
    parser.read(str(path)) if kind != 'safetensors' else None  # which is of no net, but is parsed
    content, draw = path.read_bytes(), random.Random(7)
    refused = 0
    for number in range(parser.mutations):
        path.write_bytes(damaged(content, draw))
        try:
            parser.read(str(path))
        except InputError as error:
            refused += 1
            line = str(error)
            if '\n' in line and 'what differs' not in line:
                pytest.fail(f'{kind}, mutation {number}: more than a line: {line}')
        except Exception as error:
            pytest.fail(f'{kind}, mutation {number}: {type(error).__name__}: {error}')
    assert bool(refused) == parser.refuses


@pytest.mark.quick('ONNX export')
@pytest.mark.parametrize('kind', ['ONNX export', 'TFLite export'])
def test_what_is_taken_of_an_export_computes_the_same(tmp_path: Path, kind: str) -> None:
    parser = PARSERS[kind]
    pytest.importorskip(parser.needs, reason='the extra `export` is not installed')
    path = parser.make(tmp_path)
    images = np.random.RandomState(0).uniform(0, 255, (2, 8, 8, 1)).astype(np.float32)
    expected = load_classifier(str(path)).scores(images)
    content, random = path.read_bytes(), np.random.RandomState(8)
    for _ in range(MUTATIONS if kind == 'ONNX export' else 40):  # of TFLite, some are run in another process first
        changed = bytearray(content)
        changed[random.randint(len(changed))] ^= 1 << random.randint(8)
        path.write_bytes(bytes(changed))
        try:
            found = load_classifier(str(path)).scores(images)
        except InputError:
            continue
        np.testing.assert_array_equal(found, expected)
