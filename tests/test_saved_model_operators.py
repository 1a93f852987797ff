"""What a SavedModel of others may run: what computes, and nothing that touches files, processes or Python."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2
from tensorflow.python.framework import op_def_registry

from configs.foreign import ForeignOptions, NetOverrides
from engine.classifiers import load_classifier
from engine.classifiers.saved_model_operators import COMPUTING, RESTORING, WRITING, refuse_unknown
from support.errors import InputError

v1 = tf.compat.v1
pytestmark = [
    pytest.mark.filterwarnings('ignore:__array__ implementation:DeprecationWarning'),  # Keras, saving tf.Variable
    pytest.mark.filterwarnings('ignore:.*(simple_save|build_tensor_info|Deprecated|deprecated)'),
]
IMAGES = tf.TensorSpec([None, 8, 8, 3], tf.float32, name='x')
ASKED = NetOverrides(preprocessing_name='lenet')


def mean(x: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(x, [1, 2])


def save(path: Path, make: Callable[[tf.Tensor], tf.Tensor], **attributes: Any) -> None:
    module = tf.Module()
    for name, value in attributes.items():
        setattr(module, name, value)
    module.run = tf.function(lambda x: {'y': make(x)}, [IMAGES], autograph=False)
    tf.saved_model.save(module, str(path), signatures={'serving_default': module.run})


def after(operation: Any, x: tf.Tensor) -> tf.Tensor:
    with tf.control_dependencies([operation]):
        return mean(x)


def in_a_branch(folder: Path, x: tf.Tensor) -> tf.Tensor:
    def write() -> tf.Tensor:
        return after(tf.io.write_file(f'{folder}/written', 'x'), x)

    return tf.cond(tf.reduce_sum(x) > 1e9, write, lambda: mean(x))


def in_a_loop(folder: Path, x: tf.Tensor) -> tf.Tensor:
    def body(i: tf.Tensor, _: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return i + 1, after(tf.io.write_file(f'{folder}/written', 'x'), x)

    return tf.while_loop(lambda i, _: i < 2, body, (tf.constant(0), mean(x)))[1]


def a_table(folder: Path) -> tf.lookup.StaticHashTable:
    (folder / 'names').write_text('a\nb\nc\n')
    initializer = tf.lookup.TextFileInitializer(
        tf.saved_model.Asset(str(folder / 'names')),
        tf.int64,
        tf.lookup.TextFileIndex.LINE_NUMBER,
        tf.string,
        tf.lookup.TextFileIndex.WHOLE_LINE,
    )
    return tf.lookup.StaticHashTable(initializer, 'none')


def looked_up(table: tf.lookup.StaticHashTable, x: tf.Tensor) -> tf.Tensor:
    names = table.lookup(tf.argmax(mean(x), -1))
    return after(tf.debugging.assert_greater(tf.strings.length(names), 0), x)


# Operator -> what a signature does with it.
HARMFUL: dict[str, Callable[[Path, tf.Tensor], tf.Tensor]] = {
    'WriteFile': lambda folder, x: after(tf.io.write_file(f'{folder}/written', 'x'), x),
    'ReadFile': lambda folder, x: after(tf.io.read_file('/etc/passwd'), x),
    'MatchingFiles': lambda folder, x: after(tf.io.matching_files('/etc/*'), x),
    'EagerPyFunc': lambda folder, x: tf.ensure_shape(tf.py_function(mean, [x], tf.float32), [None, 3]),
    'PrintV2': lambda folder, x: after(tf.print('x', output_stream=f'file://{folder}/written'), x),
    'SaveV2': lambda folder, x: after(tf.raw_ops.SaveV2(
        prefix=f'{folder}/written', tensor_names=['x'], shape_and_slices=[''], tensors=[x]), x),
    'RestoreV2': lambda folder, x: after(tf.raw_ops.RestoreV2(
        prefix=f'{folder}/other', tensor_names=['x'], shape_and_slices=[''], dtypes=[tf.float32])[0], x),
    'Abort': lambda folder, x: after(tf.raw_ops.Abort(error_msg='x'), x),
    'If': in_a_branch,
    'While': in_a_loop,
}  # fmt: skip


@pytest.mark.parametrize('operator', HARMFUL)
def test_what_does_more_than_compute_is_refused_by_name(tmp_path: Path, operator: str) -> None:
    path = tmp_path / 'net'
    save(path, lambda x: HARMFUL[operator](tmp_path, x))
    name = {'If': 'WriteFile', 'While': 'WriteFile'}.get(operator, operator)
    with pytest.raises(InputError, match=f'{path} was not run: it has .*: {name} \\(function .*--allow_any_operator$'):
        load_classifier(str(path), ASKED)
    assert not list(tmp_path.glob('written*'))


def test_the_flag_allows_it(tmp_path: Path) -> None:
    save(tmp_path / 'net', lambda x: HARMFUL['WriteFile'](tmp_path, x))
    load_classifier(str(tmp_path / 'net'), ASKED, ForeignOptions(allow_any_operator=True))
    assert (tmp_path / 'written').read_text() == 'x'


def of_keras(path: Path) -> None:
    images = keras.Input((8, 8, 3))
    net = keras.layers.Rescaling(1 / 255)(images)
    net = keras.layers.Resizing(6, 6)(keras.layers.RandomFlip()(net))
    net = keras.layers.BatchNormalization()(keras.layers.SeparableConv2D(4, 3, activation='relu')(net))
    net = keras.layers.Dropout(0.5)(keras.layers.MaxPooling2D()(net))
    net = keras.layers.Dense(3, activation='softmax')(keras.layers.GlobalAveragePooling2D()(net))
    keras.Model(images, net).export(path, verbose=False)


def of_tensorflow_1(path: Path) -> None:
    """With variables, a saver, a table that is read from an asset, and an operator that initialises it."""
    names = path.parent / 'names'
    names.write_text('a\nb\nc\n')
    with tf.Graph().as_default(), v1.Session() as session:
        images = v1.placeholder(tf.float32, [None, 8, 8, 3])
        scale = v1.get_variable('scale', [3], initializer=v1.ones_initializer(), use_resource=False)
        logits = mean(images) * scale
        asset = tf.constant(str(names), name='asset')
        v1.add_to_collection(v1.GraphKeys.ASSET_FILEPATHS, asset)
        initializer = tf.lookup.TextFileInitializer(
            asset, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER, tf.string, tf.lookup.TextFileIndex.WHOLE_LINE
        )
        table = tf.lookup.StaticHashTable(initializer, 'none')
        session.run([v1.global_variables_initializer(), v1.tables_initializer()])
        builder = v1.saved_model.Builder(str(path))
        outputs = {'logits': logits, 'names': table.lookup(tf.argmax(logits, -1))}
        signature = v1.saved_model.predict_signature_def({'images': images}, outputs)
        builder.add_meta_graph_and_variables(
            session,
            ['serve'],
            {'serving_default': signature},
            assets_collection=[asset],
            main_op=v1.tables_initializer(),
        )
        builder.save()


HARMLESS: dict[str, Callable[[Path], None]] = {
    'keras': of_keras,
    'tensorflow 1': of_tensorflow_1,
    'a variable': lambda path: save(path, mean, variable=tf.Variable([1.0])),
}


@pytest.mark.parametrize('name', HARMLESS)
def test_what_computes_is_run(tmp_path: Path, name: str) -> None:
    HARMLESS[name](tmp_path / 'net')
    classifier = load_classifier(str(tmp_path / 'net'), ASKED)
    assert classifier.scores(np.ones([2, 8, 8, 3], np.float32)).shape == (2, 3)


def test_a_table_of_an_asset_is_read(tmp_path: Path) -> None:
    table = a_table(tmp_path)
    save(tmp_path / 'net', lambda x: looked_up(table, x), table=table)
    (tmp_path / 'names').unlink()
    classifier = load_classifier(str(tmp_path / 'net'), ASKED)
    assert classifier.scores(np.ones([2, 8, 8, 3], np.float32)).shape == (2, 3)


# ------------------------------------------------------------------------ graphs that were put together by hand


def edit(path: Path, change: Callable[[Any], object]) -> None:
    file = path / 'saved_model.pb'
    model = saved_model_pb2.SavedModel.FromString(file.read_bytes())
    change(model.meta_graphs[0])
    file.write_bytes(model.SerializeToString())


def signature_runs_the_saver(graph: Any) -> None:
    graph.signature_def['serving_default'].outputs['saved'].name = graph.saver_def.save_tensor_name


def restoring_runs_the_saver(graph: Any) -> None:
    graph.saver_def.restore_op_name = graph.saver_def.save_tensor_name.partition(':')[0]


def initialising_runs_the_saver(graph: Any) -> None:
    saved = graph.saver_def.save_tensor_name.partition(':')[0]
    graph.collection_def['saved_model_main_op'].node_list.value[:] = [saved]


def an_asset_elsewhere(graph: Any) -> None:
    (asset,) = graph.collection_def['saved_model_assets'].any_list.value
    kept = meta_graph_pb2.AssetFileDef.FromString(asset.value)
    kept.filename = '../../../etc/passwd'
    asset.Pack(kept)


def a_table_of_a_constant(graph: Any) -> None:
    del graph.collection_def['saved_model_assets']


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (signature_runs_the_saver, 'MergeV2Checkpoints|SaveV2'),
        (restoring_runs_the_saver, 'MergeV2Checkpoints|SaveV2'),
        (initialising_runs_the_saver, 'MergeV2Checkpoints|SaveV2'),
        (an_asset_elsewhere, r'\.\./\.\./\.\./etc/passwd \(a file outside of its folder\)'),
        (a_table_of_a_constant, r'InitializeTableFromTextFileV2 \(of a file that is none of its assets, the graph\)'),
    ],
)
def test_savers_and_files_of_tensorflow_1(tmp_path: Path, change: Callable[[Any], None], message: str) -> None:
    of_tensorflow_1(tmp_path / 'net')
    edit(tmp_path / 'net', change)
    with pytest.raises(InputError, match=message):
        refuse_unknown(str(tmp_path / 'net'))


def saver_function(graph: Any) -> Any:
    functions = graph.graph_def.library.function
    return next(function for function in functions if any(node.op == 'SaveV2' for node in function.node_def))


def an_object_holds_the_saver(graph: Any) -> None:
    node = next(node for node in graph.object_graph_def.nodes if node.HasField('bare_concrete_function'))
    node.bare_concrete_function.concrete_function_name = saver_function(graph).signature.name


def a_function_calls_the_saver(graph: Any) -> None:
    called = next(iter(graph.object_graph_def.concrete_functions))
    function = next(f for f in graph.graph_def.library.function if f.signature.name == called)
    node = function.node_def.add(name='call', op='StatefulPartitionedCall')
    node.attr['f'].func.name = saver_function(graph).signature.name


def the_saver_takes_another_place(graph: Any) -> None:
    saver_function(graph).attr['api_implements'].s = b'run'


@pytest.mark.parametrize(
    'change', [an_object_holds_the_saver, a_function_calls_the_saver, the_saver_takes_another_place]
)
def test_savers_of_objects(tmp_path: Path, change: Callable[[Any], None]) -> None:
    save(tmp_path / 'net', mean, variable=tf.Variable([1.0]))
    refuse_unknown(str(tmp_path / 'net'))
    edit(tmp_path / 'net', change)
    with pytest.raises(InputError, match='SaveV2'):
        refuse_unknown(str(tmp_path / 'net'))


def test_a_graph_in_pieces_is_refused(tmp_path: Path) -> None:
    """Other loaders take it instead of the file that is looked through."""
    save(tmp_path / 'net', mean)
    shutil.copy(tmp_path / 'net/saved_model.pb', tmp_path / 'net/saved_model.cpb')
    with pytest.raises(InputError, match='a graph split over several files, cannot be checked'):
        load_classifier(str(tmp_path / 'net'), ASKED)


def test_all_names_are_operators_of_tensorflow() -> None:
    assert [name for name in sorted(COMPUTING | WRITING | RESTORING) if op_def_registry.get(name) is None] == []
    assert not COMPUTING & (WRITING | RESTORING)
    harmful = ('File', 'Py', 'Dataset', 'Iterator', 'Print', 'Debug', 'Dump', 'Reader', 'Rpc', 'Remote', 'Send', 'Recv')
    of_them = {name for name in COMPUTING for part in harmful if part in name}
    assert of_them == {'InitializeTableFromTextFile', 'InitializeTableFromTextFileV2', 'ShardedFilename'}
