"""Imports: graphs of the model zoo's and PyTorch's kind compute the same here, and what is something else is refused.

The graphs are those of `tests/graphs.py`, and the model zoo's own.
"""

import dataclasses
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import ml_dtypes
import numpy as np
import pytest

from configs.importing import ImportConfig
from configs.options import make_config
from engine import checkpoints, evaluation
from engine.classifiers.model_spec import ModelSpec
from importing import description, importing, onnx_file, onnx_graph
from importing.layers import fill, net_layers, pair, sketch_layers
from nets import nets_factory
from nets.variables import slim_variables
from support import optional_packages
from support.errors import InputError
from tests.chains import CHAINS
from tests.graphs import (
    ARCHITECTURES,
    CLASSES,
    NARROW,
    STYLES,
    ZOO,
    numpy_helper,
    onnx,
    onnx_helper,
    run_graph,
    tensor_value,
    write,
)
from tests.runs import eval_config, files, saved_values
from tests.served_nets import export, flip, occupy, snapshot

safetensors_numpy = pytest.importorskip('safetensors.numpy', reason='the extra `export` is not installed')


def run_import(source: Path, model_name: str | None, train_dir: Path, **options: Any) -> ModelSpec:
    """Imports; returns what model.json says."""
    paths = {'source': str(source), 'train_dir': str(train_dir)}
    importing.import_weights(make_config(ImportConfig, model_name=model_name, **paths, **options))
    spec = ModelSpec.load(str(train_dir))
    assert spec is not None
    return spec


def refuse(source: Path | str | None, model_name: str | None, train_dir: Path, message: str, **options: Any) -> None:
    """Checks that an import is refused, in one line or with a table, and leaves nothing."""
    paths = {'source': None if source is None else str(source), 'train_dir': str(train_dir)}
    with pytest.raises(InputError, match=message) as raised:
        importing.import_weights(make_config(ImportConfig, model_name=model_name, **{**paths, **options}))
    assert len(str(raised.value).partition(' what differs:\n')[0].splitlines()) == 1
    assert not train_dir.exists()


def load(train_dir: Path) -> keras.Model:
    """Makes the net of a train_dir, with its weights."""
    spec = ModelSpec.load(str(train_dir))
    assert spec is not None
    model = spec.make_model(seed=1)
    weights = {name: variable.value for name, variable in slim_variables(model).items()}
    checkpoints.restore(checkpoints.Checkpoint(checkpoints.find_checkpoint(str(train_dir))), weights)
    return model


def random_images(model: keras.Model, count: int = 2) -> np.ndarray:
    return np.random.RandomState(3).uniform(-2, 2, (count, *model.input_shape[1:])).astype(np.float32)


def assert_agrees(model: keras.Model, graph: Path, is_softmax: bool) -> None:
    images = random_images(model)
    found, expected = np.asarray(model(images, training=False)), run_graph(graph, images)
    if is_softmax:
        found = np.asarray(keras.ops.softmax(found))
    assert np.ptp(expected) > 0.3 * np.abs(expected).max()  # otherwise anything would agree
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(expected).max())


# ------------------------------------------------------------------------ what is imported


def test_every_net_can_be_imported():
    assert set(ARCHITECTURES) == set(CHAINS)


@pytest.mark.quick('bvlc_alexnet', 'alexnet_v2')
@pytest.mark.parametrize('net', ARCHITECTURES)
def test_a_graph_of_every_net_computes_the_same(tmp_path, net):
    source = write(tmp_path / 'net.onnx', net)
    spec = run_import(source, net, tmp_path / 'run')
    expected = nets_factory.get_net(net)
    assert (spec.model_name, spec.num_classes, spec.channels) == (net, CLASSES, 3)
    assert (spec.image_size, spec.depth_multiplier) == (expected.image_size, NARROW)
    assert (spec.preprocessing_name, spec.labels_offset, spec.dataset_name) == (expected.preprocessing, 0, '')
    assert_agrees(load(tmp_path / 'run'), source, is_softmax=False)


@pytest.mark.quick('bvlc_alexnet-zoo', 'torchvision_alexnet-dynamo', 'alexnet_v2-convolutions')
@pytest.mark.parametrize(
    ('net', 'style'),
    [
        *(('torchvision_alexnet', style) for style in STYLES),
        *(('bvlc_alexnet', style) for style in ('zoo', 'zoo, 2017')),
        *(('alexnet_v2', style) for style in ('convolutions', 'channels last')),
        *(('alexnet_bn', style) for style in ('dynamo', 'channels last')),
    ],
)
def test_every_exporters_graph_computes_the_same(tmp_path, net, style):
    source = reference = write(tmp_path / 'net.onnx', net, STYLES[style])
    run_import(source, net, tmp_path / 'run')
    if STYLES[style].opset < 7:  # which onnxruntime does not run; the weights are the same
        reference = write(tmp_path / 'newer.onnx', net, ZOO)
    assert_agrees(load(tmp_path / 'run'), reference, STYLES[style].softmax)


LIGHT = Path(onnx.__file__).parent / 'backend/test/data/light/light_bvlc_alexnet.onnx'


@pytest.mark.full
def test_the_zoos_own_graph_with_weights_computes_the_same(tmp_path):
    """At full width: the model zoo's AlexNet, which the package brings without its weights."""
    model = onnx.load(LIGHT)
    graph, random = model.graph, np.random.default_rng(0)
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in [node for node in graph.node if node.op_type == 'ConstantOfShape']:
        shape = tuple(shapes[node.input[0]])
        inputs = np.prod(shape[1:]) * (1 if node.output[0] != 'conv1_w_0' else 60**2)  # the images are of size 60
        scale = np.sqrt(2 / inputs) if len(shape) > 1 else 0.1
        value = random.standard_normal(shape, np.float32) * np.float32(scale)
        graph.initializer.append(numpy_helper.from_array(value, node.output[0]))
        graph.node.remove(node)
    source = tmp_path / 'net.onnx'
    onnx.save(model, source)
    spec = run_import(source, 'bvlc_alexnet', tmp_path / 'run', dataset_name='imagenet')
    assert (spec.num_classes, spec.labels_offset, spec.image_size, spec.depth_multiplier) == (1000, 1, 224, 1.0)
    assert_agrees(load(tmp_path / 'run'), source, is_softmax=True)
    shutil.rmtree(tmp_path)  # half a gigabyte


def test_a_graph_that_averages_over_larger_regions(tmp_path):
    """As PyTorch's adaptive pooling is exported for images of 432 pixels: 12x12 positions become 6x6."""
    source = write(tmp_path / 'net.onnx', 'torchvision_alexnet', image_size=432, average_size=2)
    assert run_import(source, 'torchvision_alexnet', tmp_path / 'run').image_size == 432
    assert_agrees(load(tmp_path / 'run'), source, is_softmax=False)


def test_weights_in_a_file_beside_the_graph(tmp_path, lenet_file):
    source = tmp_path / 'net.onnx'
    onnx.save(onnx.load(lenet_file), source, save_as_external_data=True, location='net.data', size_threshold=0)
    run_import(source, 'lenet', tmp_path / 'run')
    assert_agrees(load(tmp_path / 'run'), lenet_file, is_softmax=False)
    (tmp_path / 'net.data').write_bytes((tmp_path / 'net.data').read_bytes()[:1000])
    refuse(source, 'lenet', tmp_path / 'other', 'net.onnx: (damaged|the file with its weights cannot be read)')
    (tmp_path / 'net.data').unlink()
    refuse(source, 'lenet', tmp_path / 'other', 'net.onnx: the file with its weights cannot be read: ')


def test_functions_of_a_model_are_looked_into(tmp_path, lenet_file):
    """PyTorch's second exporter has at times written operators as functions of the model's own."""
    model = onnx.load(lenet_file)
    version = onnx_helper.make_opsetid('', 17)
    relu = onnx_helper.make_node('Relu', ['x'], ['y'])
    model.functions.append(onnx_helper.make_function('own', 'act', ['x'], ['y'], [relu], [version]))
    model.opset_import.append(onnx_helper.make_opsetid('own', 1))
    for node in model.graph.node:
        if node.op_type == 'Relu':
            node.op_type, node.domain = 'act', 'own'
    source = tmp_path / 'net.onnx'
    onnx.save(model, source)
    run_import(source, 'lenet', tmp_path / 'run')
    assert_agrees(load(tmp_path / 'run'), lenet_file, is_softmax=False)


@pytest.mark.quick('alexnet_v2-0.3*', 'caffenet*')
@pytest.mark.parametrize(
    ('net', 'multiplier'),
    [*((net, 0.3) for net in CHAINS), *(('alexnet_v2', multiplier) for multiplier in (1.0, 2.5, 1 / 3))],
)
def test_the_width_is_found(net, multiplier):
    found = widths_of(net, multiplier)
    again = description.find_depth_multiplier(net, found)
    assert again == pytest.approx(multiplier, rel=1e-4)
    assert widths_of(net, again) == found


def widths_of(net: str, multiplier: float) -> list[int]:
    layers = sketch_layers(lambda: nets_factory.make_model(net, 2, depth_multiplier=multiplier))
    return description.find_widths(layers)[:-1]


# ------------------------------------------------------------------------ what is written


@pytest.fixture(scope='module')
def lenet_file(tmp_path_factory) -> Path:
    """A small net for gray images of 8x8 pixels, a quarter as wide as slim's, with the classes of the digits."""
    path = tmp_path_factory.mktemp('lenet') / 'net.onnx'
    return write(path, 'lenet', image_size=8, channels=1, depth_multiplier=0.25, classes=10)


def test_what_is_written_and_printed(tmp_path, capsys, lenet_file):
    spec = run_import(lenet_file, 'lenet', tmp_path / 'run', dataset_name='digits')
    assert {path.name for path in (tmp_path / 'run').iterdir()} == {
        *('checkpoint', 'model.json', 'model.ckpt-0.index', 'model.ckpt-0.data-00000-of-00001')
    }
    values = saved_values(checkpoints.find_checkpoint(str(tmp_path / 'run')))
    assert values.pop('global_step') == 0
    weights = onnx.load(lenet_file).graph.initializer
    first = numpy_helper.to_array(weights[0])
    np.testing.assert_array_equal(values['LeNet/conv1/weights'], first.transpose(2, 3, 1, 0))
    assert (spec.num_classes, spec.channels, spec.image_size, spec.use_grayscale) == (10, 1, 8, False)
    numbers = sum(value.size for value in values.values())
    *lines, compared, last = capsys.readouterr().out.splitlines()
    assert lines == [
        f'imported {lenet_file} to {tmp_path}/run: lenet, 10 classes, 8 px, depth_multiplier 0.25, lenet preprocessing',
        f'matched 10 nodes with lenet: 8 tensors, {numbers} parameters',
    ]
    assert re.fullmatch(
        r'compared 40 logits of 4 images with onnxruntime: largest difference \S+e-0\d, largest logit \S+', compared
    )
    assert last == f'compared 9 tensors, {numbers + 1} numbers: equal'


@pytest.mark.full
def test_a_gray_net_of_a_preprocessing_for_colours(tmp_path):
    source = write(tmp_path / 'net.onnx', 'alexnet', image_size=57, channels=1)
    spec = run_import(source, 'alexnet', tmp_path / 'run')
    assert (spec.channels, spec.use_grayscale, spec.preprocessing_name) == (1, True, 'inception')


def test_the_names_of_the_classes(tmp_path, lenet_file):
    names = tuple(f'the {number}' for number in range(10))
    plain, numbered = tmp_path / 'plain.txt', tmp_path / 'numbered.txt'
    plain.write_text('\n'.join(names))
    numbered.write_text('0:background\n' + ''.join(f'{number}:{name}\n' for number, name in enumerate(names, 1)))
    assert run_import(lenet_file, 'lenet', tmp_path / '1', labels_path=str(plain)).label_names == names
    spec = run_import(lenet_file, 'lenet', tmp_path / '2', labels_path=str(numbered), labels_offset=1)
    assert (spec.label_names, spec.labels_offset) == (names, 1)


def test_the_data_set_says_its_names(tmp_path, lenet_file, digits_dir):
    spec = run_import(lenet_file, 'lenet', tmp_path / 'run', dataset_name='digits', dataset_dir=str(digits_dir))
    assert spec.label_names == tuple('0123456789')
    assert (spec.dataset_dir, spec.labels_offset) == (str(digits_dir), 0)


# ------------------------------------------------------------------------ what it is good for


@pytest.fixture
def imported(tmp_path, lenet_file, digits_dir) -> Path:
    run_import(lenet_file, 'lenet', tmp_path / 'run', dataset_name='digits', dataset_dir=str(digits_dir))
    return tmp_path / 'run'


def test_it_evaluates_without_further_flags(imported, tmp_path):
    results = evaluation.evaluate(eval_config(imported, eval_dir=str(tmp_path / 'eval')))
    assert (results['num_examples'], results['step'], results['model_name']) == (360, 0, 'lenet')


@pytest.mark.full
def test_training_goes_on_from_it_without_slots(imported, train_digits):
    """In its own train_dir with sgd, which keeps none."""
    before = saved_values(checkpoints.find_checkpoint(str(imported)))
    result = train_digits(imported, optimizer='sgd', learning_rate=0.0, max_number_of_steps=2)
    after = saved_values(result.checkpoint_path)
    assert [result.step, int(after['global_step']), int(after['images_seen'])] == [2, 2, 64]
    np.testing.assert_array_equal(after['LeNet/fc3/weights'], before['LeNet/fc3/weights'])


def test_another_optimizer_is_told_what_to_do(imported, train_digits):
    before = files(imported)
    with pytest.raises(InputError, match=r'resume with --optimizer=sgd, .* or start a new run .*: --checkpoint_path='):
        train_digits(imported, max_number_of_steps=2)
    assert {name: file for name, file in files(imported).items() if name in before} == before


# ------------------------------------------------------------------------ this project's own exports


@pytest.fixture
def make_run(tmp_path) -> Callable[..., Path]:
    """Returns a function that makes a train_dir of a narrow net with its initial weights."""

    def make(net: str, image_size: int) -> Path:
        options: dict[str, Any] = {'num_classes': 5, 'channels': 3, 'use_grayscale': False, 'preprocessing_name': None}
        options |= {'depth_multiplier': NARROW, 'dataset_name': 'digits', 'labels_offset': 5}
        spec = ModelSpec.for_net(net, image_size=image_size, **options)
        spec = dataclasses.replace(spec, label_names=tuple('abcde'))
        spec.save(str(tmp_path))
        values = {name: variable.value for name, variable in slim_variables(spec.make_model(seed=4)).items()}
        checkpoints.save(str(tmp_path), 7, values, 5)
        return tmp_path

    return make


@pytest.mark.quick('alexnet_bn*', 'lenet*')
@pytest.mark.parametrize(
    ('net', 'image_size', 'options'),
    [
        ('alexnet_v2', 224, {}),
        ('alexnet_bn', 67, {'layout': 'NHWC'}),
        ('bvlc_alexnet', 51, {'output': 'probabilities'}),
        ('lenet', 10, {'quantize': 'float16'}),
        ('torchvision_alexnet', 256, {}),  # of 7x7 positions, which 6x6 averages are made of
    ],
)
def test_an_export_comes_back_as_it_was(make_run, tmp_path, net, image_size, options):
    run = make_run(net, image_size)
    export(run, tmp_path / 'net.onnx', **options)
    spec = run_import(tmp_path / 'net.onnx', None, tmp_path / 'again')
    assert spec == ModelSpec.load(str(run))
    before, after = (saved_values(checkpoints.find_checkpoint(str(folder))) for folder in (run, tmp_path / 'again'))
    assert after.pop('global_step') == 0
    assert after.keys() == before.keys()
    for name, value in before.items():
        exported = value.astype(options.get('quantize', 'float32')).astype(np.float32)
        np.testing.assert_array_equal(after[name], exported, err_msg=name)


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'channel_order': 'RGB'}, 'an export with --channel_order=RGB; export the net without it'),
        ({'includes_preprocessing': True}, 'an export with --includes_preprocessing; export the net without it'),
    ],
)
def test_exports_that_are_not_the_net_alone(make_run, tmp_path, options, message):
    run = make_run('bvlc_alexnet', 51)
    export(run, tmp_path / 'net.onnx', **options)
    refuse(tmp_path / 'net.onnx', None, tmp_path / 'again', message)


def test_a_damaged_export_is_not_imported(make_run, tmp_path):
    """The graph computes with the same damaged weight as the net that is filled from it: only a checksum tells."""
    path = tmp_path / 'net.onnx'
    export(make_run('lenet', 28), path)
    flip(path, path.stat().st_size // 2)
    refuse(
        path, None, tmp_path / 'again', 'its checksum does not match: damaged, or changed by another program in LeNet/'
    )


# ------------------------------------------------------------------------ PyTorch weights


def torch_weights(source: Path, names: Sequence[str], prefix: str = '') -> dict[str, np.ndarray]:
    """Returns the weights of a graph as PyTorch names those of its layers."""
    values = [numpy_helper.to_array(tensor) for tensor in onnx.load(source).graph.initializer]
    weights, biases = values[::2], values[1::2]
    tensors = {f'{prefix}{name}.weight': value for name, value in zip(names, weights, strict=True)}
    return tensors | {f'{prefix}{name}.bias': value for name, value in zip(names, biases, strict=True)}


TORCHVISION = [
    *(f'features.{number}' for number in (0, 3, 6, 8, 10)),
    *(f'classifier.{number}' for number in (1, 4, 6)),
]


@pytest.fixture(scope='module')
def torchvision_file(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp('torchvision') / 'net.onnx', 'torchvision_alexnet')


@pytest.mark.parametrize(
    ('names', 'prefix'),
    [
        (TORCHVISION, ''),
        (TORCHVISION, 'module.'),
        (TORCHVISION, 'model._orig_mod.'),
        ([*(f'conv{number}' for number in range(1, 6)), 'fc6', 'fc7', 'fc8'], ''),
        (['d', 'e', 'c', 'f', 'b', 'g', 'a', 'h'], 'net.'),  # the shapes say where they belong
    ],
)
def test_pytorchs_weights_by_shape_and_order(tmp_path, capsys, torchvision_file, names, prefix):
    source = tmp_path / 'net.safetensors'
    tensors = torch_weights(torchvision_file, names, prefix)
    safetensors_numpy.save_file({name: value.copy() for name, value in tensors.items()}, source)
    spec = run_import(source, 'torchvision_alexnet', tmp_path / 'run')
    assert (spec.num_classes, spec.depth_multiplier, spec.image_size) == (CLASSES, NARROW, 224)
    assert_agrees(load(tmp_path / 'run'), torchvision_file, is_softmax=False)
    out = capsys.readouterr().out
    assert f'{prefix}{names[0]} to conv1, ' in out
    assert f'{prefix}{names[-1]} to fc8\n' in out
    numbers = sum(value.size for value in tensors.values())
    assert f'took all 16 tensors, {numbers} parameters; without a graph, no logits were compared\n' in out


def test_pytorchs_batch_normalisation(tmp_path):
    graph = write(tmp_path / 'net.onnx', 'alexnet_bn')
    stored = iter([numpy_helper.to_array(tensor) for tensor in onnx.load(graph).graph.initializer])
    tensors: dict[str, np.ndarray] = {}
    for layer in ('0', '2', '4', '6', '8', '10', '12', '15', '18', '20'):
        leaves = ('weight', 'bias', 'running_mean', 'running_var') if layer in ('2', '6') else ('weight', 'bias')
        tensors |= {f'{layer}.{leaf}': next(stored).copy() for leaf in leaves}
    tensors['2.num_batches_tracked'] = np.array(10)
    source = tmp_path / 'net.safetensors'
    safetensors_numpy.save_file(tensors, source)
    run_import(source, 'alexnet_bn', tmp_path / 'run')
    assert_agrees(load(tmp_path / 'run'), graph, is_softmax=False)


# ------------------------------------------------------------------------ graphs of other nets


def edited(source: Path, path: Path, edit: Callable[[Any], object]) -> Path:
    """Writes a graph with one thing changed."""
    model = onnx.load(source)
    edit(model.graph)
    onnx.save(model, path)
    return path


def node_of(graph: Any, op: str, number: int = 0) -> Any:
    return [node for node in graph.node if node.op_type == op][number]


def set_attribute(op: str, name: str, value: Any, number: int = 0) -> Callable[[Any], None]:
    def edit(graph: Any) -> None:
        node = node_of(graph, op, number)
        for attribute in [attribute for attribute in node.attribute if attribute.name == name]:
            node.attribute.remove(attribute)
        node.attribute.append(onnx_helper.make_attribute(name, value))

    return edit


def replace_weights(op: str, number: int, position: int, change: Callable[[np.ndarray], Any]) -> Callable[[Any], None]:
    def edit(graph: Any) -> None:
        name = node_of(graph, op, number).input[position]
        (tensor,) = [tensor for tensor in graph.initializer if tensor.name == name]
        tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor)), name))

    return edit


def insert_behind(op: str, new: str, *inputs: str, number: int = 0, **attributes: Any) -> Callable[[Any], None]:
    def edit(graph: Any) -> None:
        node = node_of(graph, op, number)
        output = node.output[0]
        node.output[0] = f'{output}.before'
        position = list(graph.node).index(node) + 1
        graph.node.insert(position, onnx_helper.make_node(new, [node.output[0], *inputs], [output], **attributes))

    return edit


def remove(op: str, number: int = 0) -> Callable[[Any], None]:
    def edit(graph: Any) -> None:
        node = node_of(graph, op, number)
        for other in graph.node:
            other.input[:] = [node.input[0] if name == node.output[0] else name for name in other.input]
        graph.output[0].name = node.input[0] if graph.output[0].name == node.output[0] else graph.output[0].name
        graph.node.remove(node)

    return edit


def widen_conv2(graph: Any) -> None:
    replace_weights('Conv', 1, 1, lambda value: np.concatenate([value, value[:4]]))(graph)
    replace_weights('Conv', 1, 2, lambda value: np.concatenate([value, value[:4]]))(graph)
    replace_weights('Conv', 2, 1, lambda value: np.concatenate([value, value[:, :2]], 1))(graph)


def end_before(graph: Any) -> None:
    node = node_of(graph, 'Gemm', 2)
    graph.output[0].name = node.input[0]
    graph.node.remove(node)


def branch(graph: Any) -> None:
    node = node_of(graph, 'Relu')
    graph.node.append(onnx_helper.make_node('Sigmoid', [node.output[0]], ['elsewhere']))


def reverse(graph: Any) -> None:
    nodes = list(graph.node)[::-1]
    del graph.node[:]
    graph.node.extend(nodes)


def give_more(graph: Any) -> None:
    graph.output.insert(0, onnx_helper.make_tensor_value_info(node_of(graph, 'Gemm').output[0], 1, None))


@pytest.fixture(scope='module')
def bvlc_file(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp('bvlc') / 'net.onnx', 'bvlc_alexnet')


@pytest.fixture(scope='module')
def bn_file(tmp_path_factory) -> Path:
    return write(tmp_path_factory.mktemp('bn') / 'net.onnx', 'alexnet_bn')


@pytest.mark.parametrize('edit', [branch, reverse, give_more, insert_behind('Conv', 'Identity')])
def test_what_the_logits_do_not_depend_on(tmp_path, bn_file, edit):
    source = edited(bn_file, tmp_path / 'net.onnx', edit)
    run_import(source, 'alexnet_bn', tmp_path / 'run')
    assert_agrees(load(tmp_path / 'run'), bn_file, is_softmax=False)


def test_a_graph_with_branches(tmp_path):
    random = np.random.RandomState(0)
    shapes = {'a': (4, 3, 3, 3), 'b': (4, 3, 1, 1), 'c': (4, 8, 3, 3), 'fc': (5, 4 * 6 * 6)}
    weights = [numpy_helper.from_array(random.randn(*shape).astype(np.float32), name) for name, shape in shapes.items()]
    nodes = [
        onnx_helper.make_node('Conv', ['images', 'a'], ['left'], pads=[1] * 4),
        onnx_helper.make_node('Conv', ['images', 'b'], ['right']),
        onnx_helper.make_node('Concat', ['left', 'right'], ['both'], axis=1),
        onnx_helper.make_node('Conv', ['both', 'c'], ['inside'], pads=[1] * 4),
        onnx_helper.make_node('Add', ['inside', 'left'], ['sum']),
        onnx_helper.make_node('Flatten', ['sum'], ['flat']),
        onnx_helper.make_node('Gemm', ['flat', 'fc'], ['logits'], transB=1),
    ]
    ends = [tensor_value('images', (1, 3, 6, 6))], [tensor_value('logits', (1, 5))]
    version = onnx_helper.make_opsetid('', 17)
    graph = onnx_helper.make_graph(nodes, 'net', *ends, weights)
    onnx.save(onnx_helper.make_model(graph, opset_imports=[version], ir_version=8), tmp_path / 'net.onnx')

    images = keras.Input((6, 6, 3))
    left = keras.layers.Conv2D(4, 3, padding='same')(images)
    both = keras.layers.Concatenate()([left, keras.layers.Conv2D(4, 1)(images)])
    net = keras.layers.Add()([keras.layers.Conv2D(4, 3, padding='same', use_bias=False)(both), left])
    model = keras.Model(images, keras.layers.Dense(5)(keras.layers.Flatten()(net)))
    found = onnx_graph.read_graph(onnx_file.load(str(tmp_path / 'net.onnx')))
    assert fill(pair(found.layers, net_layers(model), 'net.onnx', 'net')) == (4, 27 * 4 + 12 + 72 * 4 + 720)
    assert_agrees(model, tmp_path / 'net.onnx', is_softmax=False)


# What is changed; the rows of the table, each of a layer of the source and one of the net.
OTHER_LAYERS = [
    (
        widen_conv2,
        ["node 4 (Conv 'Conv_4') kernel 20x3x5x5, bias 20, groups 2 conv2 kernel 16x3x5x5, bias 16, groups 2",
         "node 8 (Conv 'Conv_8') kernel 24x18x3x3, bias 24 conv3 kernel 24x16x3x3, bias 24"],
    ),
    (
        set_attribute('Conv', 'group', 1, 1),
        ["node 4 (Conv 'Conv_4') kernel 16x3x5x5, bias 16 conv2 kernel 16x3x5x5, bias 16, groups 2"],
    ),
    (remove('Conv', 4), ['none conv5 kernel 16x12x3x3, bias 16, groups 2']),
    (end_before, ['none fc8 kernel 256x256, bias 256']),
    (insert_behind('Relu', 'MatMul', 'more', number=6), ["node 20 (MatMul 'Relu_19') kernel 256x256 none"]),
    (insert_behind('Gemm', 'Gemm', 'more', number=2), ["node 20 (Gemm 'Gemm_20.before') kernel 7x256, bias 7 none"]),
]  # fmt: skip


@pytest.mark.parametrize(('edit', 'rows'), OTHER_LAYERS)
def test_layers_that_do_not_pair_are_named(tmp_path, bvlc_file, edit, rows):
    def with_more(graph: Any) -> None:
        graph.initializer.append(numpy_helper.from_array(np.ones((256, 256), np.float32), 'more'))
        edit(graph)

    source = edited(bvlc_file, tmp_path / 'net.onnx', with_more)
    assert refused_rows(source, 'bvlc_alexnet', tmp_path / 'run') == rows


def refused_rows(source: Path, net: str, train_dir: Path) -> list[str]:
    """Returns the rows of the table, in which one space stands between columns."""
    message = rf'--source={source}: not {net} .*; give the --model_name, or --image_size, .*; what differs:\n'
    with pytest.raises(InputError, match=message) as raised:
        run_import(source, net, train_dir)
    assert not train_dir.exists()
    heading, *rows = (' '.join(row.split()) for row in str(raised.value).splitlines()[1:])
    assert heading == 'layer of the source layer of the net'
    return rows


def test_other_statistics_of_batch_normalisation(tmp_path, bn_file):
    source = edited(bn_file, tmp_path / 'net.onnx', set_attribute('BatchNormalization', 'epsilon', 1e-5))
    (row,) = refused_rows(source, 'alexnet_bn', tmp_path / 'run')
    assert re.fullmatch(r'node 2 .* 6, epsilon 1e-05 bn1 gamma 6, .*, moving_variance 6, epsilon 0.001', row)


def test_another_net_altogether(tmp_path, bvlc_file):
    rows = refused_rows(bvlc_file, 'lenet', tmp_path / 'run')
    assert rows[0] == "node 0 (Conv 'Conv_0') kernel 6x3x11x11, bias 6 conv1 kernel 32x3x5x5, bias 32"
    assert rows[-1] == "node 20 (Gemm 'Gemm_20') kernel 7x256, bias 7 none"
    assert len(rows) == 8


def test_a_long_table_is_cut(tmp_path):
    tensors = {f'{number}.weight': zeros(32, 1) for number in range(30)}
    safetensors_numpy.save_file(tensors, tmp_path / 'net.safetensors')
    rows = refused_rows(tmp_path / 'net.safetensors', 'lenet', tmp_path / 'run')
    assert rows[0].startswith('0 kernel 32x1 conv1 kernel 32x')
    assert rows[-1] == '... and 10 more'


# What is changed where weights pair; between which layers of the net the values begin to differ.
OTHER_COMPUTATIONS = [
    (set_attribute('MaxPool', 'pads', [1, 1, 0, 0], 2), 'conv5', 'fc6'),
    (set_attribute('MaxPool', 'kernel_shape', [2, 2], 1), 'conv2', 'conv3'),
    (set_attribute('Conv', 'pads', [1, 1, 3, 3], 1), 'conv2', 'conv3'),
    (set_attribute('LRN', 'alpha', 2e-5), 'conv1', 'conv2'),
    (set_attribute('LRN', 'size', 3, 1), 'conv2', 'conv3'),
    (remove('LRN'), 'conv1', 'conv2'),
    (remove('Relu', 2), 'conv3', 'conv4'),
    (remove('Relu', 4), 'conv5', 'fc6'),
    (insert_behind('Conv', 'Sigmoid'), 'conv1', 'conv2'),
    (insert_behind('Gemm', 'Neg', number=2), 'fc8', ''),
    (insert_behind('Gemm', 'Relu', number=2), 'fc8', ''),
]


@pytest.mark.parametrize(('edit', 'before', 'behind'), OTHER_COMPUTATIONS)
def test_logits_that_differ(tmp_path, bvlc_file, edit, before, behind):
    source = edited(bvlc_file, tmp_path / 'net.onnx', edit)
    where = f'what comes behind {before} differs'
    if behind:
        where = (
            rf'what node .* takes is not what {behind} takes, which comes behind {before}; strides, padding, .* there'
        )
    logits = rf'--source={source}: the logits of bvlc_alexnet .* differ by \S+ from .*, whose largest is \S+'
    message = f'{logits}: {where}; give the --model_name of a net that computes this; nothing was written'
    refuse(source, 'bvlc_alexnet', tmp_path / 'run', message)


def test_what_noise_alone_would_hide(tmp_path):
    """Of 3x3 places one is positive in noise: then a ReLU before the pooling changes nothing."""
    graph = write(tmp_path / 'whole.onnx', 'caffenet', ZOO, image_size=67)
    source = edited(graph, tmp_path / 'net.onnx', remove('Relu', 4))
    refuse(source, 'caffenet', tmp_path / 'run', 'the logits of caffenet .* what fc6 takes, which comes behind conv5')


def test_logits_of_a_net_with_the_same_weights(tmp_path, bvlc_file):
    refuse(bvlc_file, 'caffenet', tmp_path / 'run', 'the logits of caffenet .* what conv2 takes')


@pytest.mark.parametrize(
    ('edit', 'message'),
    [
        (set_attribute('MaxPool', 'strides', [1, 1]), 'onnxruntime cannot run it: .*576 and 2304'),
        (set_attribute('MaxPool', 'pads', [0, 0, 0, 0], 2), 'onnxruntime cannot run it: .*576 and 400'),
        (set_attribute('Conv', 'dilations', [2, 2], 2), 'onnxruntime cannot run it: .*576 and 400'),
        (insert_behind('Conv', 'Pad', mode='reflect'), 'onnxruntime cannot run it: .*Pad'),
    ],
)
def test_weights_that_are_not_of_their_graph(tmp_path, bvlc_file, edit, message):
    refuse(edited(bvlc_file, tmp_path / 'net.onnx', edit), 'bvlc_alexnet', tmp_path / 'run', message)


def test_a_softmax_over_something_else(tmp_path):
    style = dataclasses.replace(STYLES['torchscript'], softmax=True)
    graph = write(tmp_path / 'whole.onnx', 'lenet', style)
    run_import(graph, 'lenet', tmp_path / 'whole')
    source = edited(graph, tmp_path / 'net.onnx', set_attribute('Softmax', 'axis', 0))
    refuse(source, 'lenet', tmp_path / 'run', 'the Softmax after the logits is not over the classes; give the --model')


# ------------------------------------------------------------------------ weights of 16 bits


def in_16_bits(model: Any, kind: int) -> Any:
    """Returns a graph whose weights, images and results are of 16 bits, with a cast to float32 at its end."""
    graph = model.graph
    for tensor in graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(dtype), tensor.name))
    graph.input[0].type.tensor_type.elem_type = kind
    last = graph.node[-1].output[0]
    graph.node[-1].output[0] = 'short'
    graph.node.add(op_type='Cast', name='Cast_end', input=['short'], output=[last]).attribute.add(
        name='to', type=onnx.AttributeProto.INT, i=onnx.TensorProto.FLOAT
    )
    return model


@pytest.mark.parametrize('kind', ['FLOAT16', 'BFLOAT16'])
def test_graphs_in_16_bits_are_widened_exactly(tmp_path, lenet_file, kind):
    number = getattr(onnx.TensorProto, kind)
    path = tmp_path / 'net.onnx'
    onnx.save(in_16_bits(onnx.load(lenet_file), number), path)
    run_import(path, 'lenet', tmp_path / 'short')
    run_import(lenet_file, 'lenet', tmp_path / 'long')
    short, long = (saved_values(checkpoints.find_checkpoint(str(tmp_path / name))) for name in ('short', 'long'))
    dtype = onnx.helper.tensor_dtype_to_np_dtype(number)
    for name, value in long.items():
        expected = value if value.dtype != np.float32 else value.astype(dtype).astype(np.float32)
        np.testing.assert_array_equal(short[name], expected, err_msg=name)
        assert short[name].dtype == value.dtype


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_pytorchs_weights_in_16_bits(tmp_path, torchvision_file, dtype):
    kind = np.dtype(getattr(ml_dtypes, dtype, dtype))
    values = torch_weights(torchvision_file, TORCHVISION)
    for name, tensors in {'long': values, 'short': {key: value.astype(kind) for key, value in values.items()}}.items():
        (tmp_path / f'{name}.safetensors').write_bytes(safetensors_numpy.save(tensors))
        run_import(tmp_path / f'{name}.safetensors', 'torchvision_alexnet', tmp_path / name)
    long, short = (saved_values(checkpoints.find_checkpoint(str(tmp_path / name))) for name in ('long', 'short'))
    for name in set(long) - {'global_step'}:
        np.testing.assert_array_equal(short[name], long[name].astype(kind).astype(np.float32), err_msg=name)


# ------------------------------------------------------------------------ files that are damaged, or hold no weights


def forget_weights(graph: Any) -> None:
    graph.input.extend(tensor_value(tensor.name, tensor.dims) for tensor in graph.initializer)
    del graph.initializer[:]


def cut_weights(graph: Any) -> None:
    graph.initializer[0].raw_data = graph.initializer[0].raw_data[:-1]


def set_input(shape: Sequence[Any], dtype: Any = np.float32) -> Callable[[Any], None]:
    return lambda graph: graph.input[0].CopyFrom(tensor_value('images', shape, dtype))


def with_nan(value: np.ndarray) -> np.ndarray:
    return np.where(np.arange(value.size).reshape(value.shape) < 2, np.float32(np.nan), value)


DAMAGED_GRAPHS = [
    (forget_weights, r"holds no weights, or not all: '.*' has no value; give the file that has them"),
    (cut_weights, "damaged: 'tensor0': "),
    (replace_weights('Gemm', 1, 1, with_nan), r"node 9 \(Gemm '.*'\) takes '.*', in which 2 of \d+ numbers are not"),
    (replace_weights('Conv', 0, 1, np.float64), r"node 0 \(Conv '.*'\) takes 'tensor0' in float64; float32 is needed"),
    (lambda graph: setattr(node_of(graph, 'Conv'), 'op_type', 'QLinearConv'), r'quantised \(QLinearConv .*the float32'),
    (set_input([1, 1, 8, 8], np.uint8), "its images 'images' are not floats; use the float32 file"),
    (set_input([1, 64]), 'must take one batch of images'),
    (set_input([1, 1, 8, 12]), 'its images are 8x12; the nets here take square ones'),
    (set_input([1, 4, 8, 8]), 'its images have 4 channels'),
    (set_input([1, None, 8, 8]), 'its images have any number of channels'),
    (lambda graph: graph.ClearField('node'), 'no graph in it, so not an ONNX file, or damaged'),
]  # fmt: skip


@pytest.mark.parametrize(('edit', 'message'), DAMAGED_GRAPHS)
def test_a_damaged_graph(tmp_path, lenet_file, edit, message):
    source = edited(lenet_file, tmp_path / 'net.onnx', edit)
    refuse(source, 'lenet', tmp_path / 'run', f'--source={source}: {message}')


def test_the_zoos_graph_without_weights(tmp_path):
    message = "holds no weights: 'conv1_w_0' is made by ConstantOfShape; give the file that has them"
    refuse(LIGHT, 'bvlc_alexnet', tmp_path / 'run', message)


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('net.onnx', b'', 'no graph in it, so not an ONNX file, or damaged'),
        ('net.onnx', b'not a graph', 'not an ONNX file, or damaged; copy or download it again'),
        ('net.onnx', b'PK\x03\x04 and so on', 'a zip archive, not an ONNX file'),
        ('net.onnx', b'\x80\x02 and so on', 'a pickle, not an ONNX file'),
        ('net.h5', b'', r'unknown kind of file; its name must end in .onnx or .safetensors'),
        ('net.h5', b'\x89HDF\r\n\x1a\n', 'an HDF5 file of Keras, no source: --checkpoint_path takes .weights.h5'),
        ('net.keras', b'PK\x03\x04', 'a .keras file, which needs no import: --checkpoint_path takes it as it is'),
        ('net.pb', b'\n\x0a\n\x01x\x12\x05Const', 'a frozen graph of TensorFlow 1 .* tf2onnx'),
        ('net.tflite', b'\x1c\0\0\0TFL3', 'a TFLite file; its weights are not taken: evaluation and prediction run it'),
        ('NET.SAFETENSORS', b'', 'not a .safetensors file, or damaged'),
        ('net.pth', b'', r"a pickle, .*safetensors.torch.save_file\(torch.load\('net.pth', .*\), 'net.safetensors'\)"),
        ('net.safetensors', b'', 'not a .safetensors file, or damaged'),
        ('net.safetensors', b'\x10' + bytes(7) + b'{' * 16, 'not a .safetensors file, or damaged'),
    ],
)
def test_other_files(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    refuse(tmp_path / name, 'lenet', tmp_path / 'run', f'--source={tmp_path}/{name}: {message}')


def test_a_file_that_is_cut_short(tmp_path, lenet_file, torchvision_file):
    for name, content in (
        ('net.onnx', lenet_file.read_bytes()),
        ('net.safetensors', safetensors_numpy.save(torch_weights(torchvision_file, TORCHVISION))),
    ):
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        refuse(tmp_path / name, 'lenet', tmp_path / 'run', f'--source={tmp_path}/{name}: not an? .* file, or damaged')


def change_torch(name: str, *values: np.ndarray) -> Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]:
    """Replaces a tensor, or adds one; without a value removes all of a layer."""
    if values:
        return lambda tensors: {**tensors, name: values[0]}
    return lambda tensors: {other: value for other, value in tensors.items() if not other.startswith(f'{name}.')}


def zeros(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.zeros(shape, dtype)


OTHER_SHAPES = [
    (
        change_torch('features.3.weight', zeros(12, 4, 3, 3)),
        'features.3 kernel 12x4x3x3, bias 12 conv2 kernel 12x4x5x5, bias 12',
    ),
    (
        change_torch('classifier.1.weight', zeros(256, 400)),
        'classifier.1 kernel 256x400, bias 256 fc6 kernel 256x576, bias 256',
    ),
    (change_torch('features.12.weight', zeros(16, 16, 3, 3)), 'features.12 kernel 16x16x3x3 none'),
    (change_torch('features.10'), 'none conv5 kernel 16x16x3x3, bias 16'),
    (
        change_torch('features.0.running_mean', zeros(4)),
        'features.0 kernel 4x3x11x11, bias 4, moving_mean 4 conv1 kernel 4x3x11x11, bias 4',
    ),
]


@pytest.mark.parametrize(('change', 'row'), OTHER_SHAPES)
def test_pytorchs_weights_of_another_net(tmp_path, torchvision_file, change, row):
    source = tmp_path / 'net.safetensors'
    safetensors_numpy.save_file(change(torch_weights(torchvision_file, TORCHVISION)), source)
    assert refused_rows(source, 'torchvision_alexnet', tmp_path / 'run') == [row]


OTHER_TENSORS = [
    (
        change_torch('features.0.scale', zeros(4)),
        "'features.0.scale' is not one of weight, bias, running_mean, running_var",
    ),
    (
        change_torch('features.0.weight', zeros(4, 3, 11, 11, dtype=np.float64)),
        'features.0.weight is F64; F32, F16, BF16 are read: save it after model.float',
    ),
    (
        change_torch('features.0.weight', zeros(4, 3, 11, 11) * np.float32('nan')),
        'features.0.weight: 1452 of 1452 numbers are not finite',
    ),
    (lambda tensors: {}, 'no weights in it'),
]


@pytest.mark.parametrize(('change', 'message'), OTHER_TENSORS)
def test_pytorchs_weights_that_cannot_be_taken(tmp_path, torchvision_file, change, message):
    source = tmp_path / 'net.safetensors'
    safetensors_numpy.save_file(change(torch_weights(torchvision_file, TORCHVISION)), source)
    refuse(source, 'torchvision_alexnet', tmp_path / 'run', f'--source={source}: {message}')


# ------------------------------------------------------------------------ flags


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'source': None}, '--source is missing: a file that ends in .onnx or .safetensors'),
        ({'source': '/no/such.onnx'}, '--source=/no/such.onnx: no such file'),
        ({'model_name': None}, '--model_name is missing: the net of the source; valid: alexnet, '),
        ({'model_name': 'lenett'}, r"unknown net 'lenett' \(did you mean 'lenet'\?\)"),
        ({'preprocessing_name': 'caffee'}, "unknown preprocessing 'caffee'"),
        ({'train_dir': None}, '--train_dir=: name a local folder'),
        ({'train_dir': 'gs://bucket/run'}, '--train_dir=gs://bucket/run: name a local folder'),
        ({'train_dir': 'a[b'}, r'--train_dir=a\[b: TensorFlow cannot read checkpoints'),
        ({'image_size': 28}, '--image_size=28: .*net.onnx takes images of 8 px; leave it out'),
        ({'dataset_name': 'mnits'}, "unknown dataset_name 'mnits'"),
        (
            {'dataset_name': 'flowers'},
            'the source has 10 classes, and --dataset_name=flowers 5; name the data set that',
        ),
        (
            {'dataset_name': 'mnist', 'labels_offset': 1},
            'the source has 10 classes, and --dataset_name=mnist 10 less --labels_offset=1',
        ),
        ({'labels_path': __file__}, f'--labels_path={__file__}: [0-9]+ names; the net has 10 classes'),
    ],
)
def test_bad_flags(tmp_path, monkeypatch, lenet_file, options, message):
    monkeypatch.chdir(tmp_path)
    given = {'source': str(lenet_file), 'model_name': 'lenet', 'train_dir': 'run', **options}
    with pytest.raises(InputError, match=message):
        importing.import_weights(make_config(ImportConfig, **given))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.quick('folder*', 'file*', 'link*')
@pytest.mark.parametrize(
    ('there', 'message'),
    [
        ('run', 'holds a run, which is not replaced; choose another folder'),
        ('folder', 'holds precious.txt, which is not replaced; choose another folder'),
        ('file', 'exists and is not a folder; choose another path'),
        ('link to a folder', 'exists and is not a folder; choose another path'),
    ],
)
def test_what_is_there_is_unharmed(tmp_path, lenet_file, trained, there, message):
    train_dir = tmp_path / 'run'
    if there == 'run':
        shutil.copytree(Path(trained.checkpoint_path).parent, train_dir)
    else:
        occupy(train_dir, there)
    before = snapshot(tmp_path)
    for overwrite in (False, True):
        with pytest.raises(InputError, match=f'--train_dir={train_dir} {message}'):
            run_import(lenet_file, 'lenet', train_dir, overwrite=overwrite)
    assert snapshot(tmp_path) == before


def test_an_import_is_replaced_only_when_asked(tmp_path, lenet_file, torchvision_file):
    train_dir = tmp_path / 'run'
    train_dir.mkdir()  # an empty folder holds nothing that could be harmed
    run_import(lenet_file, 'lenet', train_dir)
    before = files(train_dir)
    with pytest.raises(InputError, match='holds an earlier import; choose another folder, or add --overwrite'):
        run_import(torchvision_file, 'torchvision_alexnet', train_dir)
    with pytest.raises(InputError, match='not lenet'):
        run_import(torchvision_file, 'lenet', train_dir, overwrite=True)
    assert files(train_dir) == before
    assert run_import(torchvision_file, 'torchvision_alexnet', train_dir, overwrite=True).image_size == 224
    assert [path.name for path in tmp_path.iterdir()] == ['run']


@pytest.mark.parametrize(('name', 'package'), [('net.onnx', 'onnx'), ('net.safetensors', 'safetensors')])
def test_a_package_that_is_not_installed(tmp_path, monkeypatch, lenet_file, name, package):
    shutil.copyfile(lenet_file, tmp_path / name)
    monkeypatch.setitem(sys.modules, package, None)
    refuse(
        tmp_path / name, 'lenet', tmp_path / 'run', r"reading .* needs the extra `export`: pip install -e '.\[export\]'"
    )


def test_a_package_that_is_broken(tmp_path, monkeypatch):
    (tmp_path / 'half_there.py').write_text('import not_there')
    (tmp_path / 'broken.py').write_text("raise ImportError('libx.so.1: cannot open shared object file')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"^reading: half_there cannot be loaded: No module named 'not_there'$"):
        optional_packages.load('half_there', 'reading')
    with pytest.raises(InputError, match=r'^reading: broken cannot be loaded: libx.so.1: cannot open'):
        optional_packages.load('broken', 'reading')
