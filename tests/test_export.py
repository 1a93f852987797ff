"""Exports: what is written reads back as it was, evaluates to the same numbers, and replaces nothing unasked."""

import json
import os
import re
import shutil
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf

from engine import checkpoints, evaluation
from engine.checkpoints import keras_files
from engine.checkpoints.__main__ import main as inspect
from engine.classifiers.model_spec import ModelSpec
from export import export_factory, weights
from nets import nets_factory
from nets.variables import slim_variables
from support.errors import InputError
from tests.runs import DIGITS_NET, STILL, eval_config, files, saved_values
from tests.scripts import run_python
from tests.served_nets import export, flip, occupy, snapshot

# Keras 3.15, saving a tf.Variable with NumPy 2 (2026-11-21).
pytestmark = pytest.mark.filterwarnings('ignore:__array__ implementation:DeprecationWarning')

OUTPUTS = {'slim': 'exported', 'keras': 'net.keras', 'weights.h5': 'net.weights.h5'}


def read_all(path: Path | str) -> dict[str, np.ndarray]:
    """Returns everything in a checkpoint of any format by name, read as `--checkpoint_path` is."""
    checkpoint = checkpoints.Checkpoint(checkpoints.find_checkpoint(str(path)))
    return {name: checkpoint.read(name) for name in checkpoint.shapes}


def assert_equal(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert set(actual) == set(expected)
    for name, value in expected.items():
        assert actual[name].dtype == value.dtype, name
        np.testing.assert_array_equal(actual[name], value, err_msg=name)


def weights_of(values: dict[str, np.ndarray], suffix: str = '') -> dict[str, np.ndarray]:
    return {
        name.removesuffix(suffix): value
        for name, value in values.items()
        if (name.endswith(suffix) if suffix else not checkpoints.is_training_state(name))
    }


@pytest.fixture(scope='module')
def exported(trained, tmp_path_factory) -> dict[str, Path]:
    """The trained run in every format."""
    folder = tmp_path_factory.mktemp('exported')
    return {name: export(trained.checkpoint_path, folder / output, format=name) for name, output in OUTPUTS.items()}


def test_every_format_is_tested():
    assert set(OUTPUTS) == {name for name, chosen in export_factory.FORMATS.items() if not chosen.is_run}


# ------------------------------------------------------------------------ slim's own checkpoint

SLIMS = 'goldens/checkpoints/cifarnet_cifar10'
OF_SLIMS = {'model_name': 'cifarnet', 'dataset_name': 'cifar10'}
AVERAGE = '/ExponentialMovingAverage'


@pytest.fixture(scope='module')
def slims_exported(shared_path, tmp_path_factory) -> dict[tuple[str, bool], Path]:
    """Slim's checkpoint in every format: its weights, and its averages as the weights."""
    folder = tmp_path_factory.mktemp('slims')
    return {
        (name, averaged): export(
            shared_path(SLIMS),
            folder / str(averaged) / output,
            format=name,
            moving_average_decay=0.99 if averaged else None,
            **OF_SLIMS,
        )
        for name, output in OUTPUTS.items()
        for averaged in (False, True)
    }


def test_slims_checkpoint_comes_back_as_it_was(shared_path, slims_exported):
    assert_equal(read_all(slims_exported['slim', False]), read_all(shared_path(SLIMS)))


@pytest.mark.parametrize('averaged', [False, True])
@pytest.mark.parametrize('name', OUTPUTS)
def test_weights_of_slims_checkpoint_are_equal(shared_path, slims_exported, name, averaged):
    original, written = read_all(shared_path(SLIMS)), read_all(slims_exported[name, averaged])
    assert_equal(weights_of(written), weights_of(original, AVERAGE if averaged else ''))
    assert written['global_step'] == 3600
    assert written['global_step'].dtype == np.int64
    averages = {key: value for key, value in original.items() if key.endswith(AVERAGE)}
    kept = {key: value for key, value in written.items() if key.endswith(AVERAGE)}
    assert_equal(kept, averages if name == 'slim' else {})
    assert ('CifarNet/fc3/weights/Momentum' in written) == (name == 'slim' and not averaged)


@pytest.mark.parametrize('averaged', [False, True])
def test_tensorflow_1_restores_a_slim_export_as_slim_does(slims_exported, averaged):
    """With a `Saver` over a graph of slim's variables, as its eval_image_classifier.py builds it."""
    folder = slims_exported['slim', False]
    values = read_all(folder)
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        step = tf.compat.v1.get_variable('global_step', [], tf.int64)
        variables = [
            tf.compat.v1.get_variable(name, value.shape, use_resource=False)
            for name, value in weights_of(values).items()
        ]
        restored = {variable.op.name: variable for variable in variables}
        if averaged:
            averages = tf.compat.v1.train.ExponentialMovingAverage(0.99, step)
            restored = averages.variables_to_restore(variables)
        saver = tf.compat.v1.train.Saver({**restored, 'global_step': step})
        saver.restore(session, tf.compat.v1.train.latest_checkpoint(str(folder)))
        found = dict(zip((variable.op.name for variable in variables), session.run(variables), strict=True))
        assert session.run(step) == 3600
    assert_equal(found, weights_of(values, AVERAGE if averaged else ''))


# ------------------------------------------------------------------------ every format


@pytest.mark.quick('keras')
@pytest.mark.parametrize('name', OUTPUTS)
def test_evaluation_does_not_depend_on_the_format(trained, exported, tmp_path, name):
    original, again = (
        evaluation.evaluate(eval_config(path, eval_dir=str(tmp_path)))
        for path in (trained.checkpoint_path, exported[name])
    )
    same = [key for key in original if key not in ('images_per_second', 'checkpoint_path')]
    assert {key: again[key] for key in same} == {key: original[key] for key in same}


@pytest.mark.parametrize('name', OUTPUTS)
def test_a_chain_of_formats_loses_nothing(exported, tmp_path, name):
    """Every format can be exported to every other one, and comes back."""
    weights = weights_of(read_all(exported[name]))
    for step, (other, output) in enumerate(OUTPUTS.items()):
        path = export(exported[name], tmp_path / str(step) / output, format=other)
        assert_equal(weights_of(read_all(path)), weights)
        ours, theirs = (checkpoints.find_checkpoint(str(each)) for each in (path, exported[name]))
        assert ModelSpec.of_checkpoint(checkpoints.Checkpoint(ours)) == ModelSpec.of_checkpoint(
            checkpoints.Checkpoint(theirs)
        )


def test_what_is_printed_names_what_was_compared(trained, tmp_path, capsys):
    path = export(trained.checkpoint_path, tmp_path / 'net.keras', format='keras')
    numbers = sum(value.size for value in weights_of(saved_values(trained.checkpoint_path)).values()) + 1
    *lines, size_and_time = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r'0\.\d\d MB, in \d\.\d seconds', size_and_time)
    assert lines == [
        f'exported the weights of {trained.checkpoint_path}, step 300, to {path}',
        f'compared 9 tensors, {numbers} numbers: equal',
        'compared 40 logits of 4 images: largest difference 0',
        'compared what it says of itself: lenet, 10 classes, 8 px',
    ]


def test_keras_loads_what_was_exported(exported):
    """Without any of this project's readers, and with Keras' safe mode."""
    values = weights_of(read_all(exported['slim']))
    loaded = keras.saving.load_model(exported['keras'], safe_mode=True)
    assert_equal({name: variable.numpy() for name, variable in slim_variables(loaded).items()}, values)
    model = nets_factory.make_model('lenet', 10, image_size=8, channels=1, depth_multiplier=0.25, seed=5)
    model.load_weights(exported['weights.h5'])
    assert_equal({name: variable.numpy() for name, variable in slim_variables(model).items()}, values)


# ------------------------------------------------------------------------ training from them


@pytest.mark.quick('slim')
@pytest.mark.parametrize('name', OUTPUTS)
def test_fine_tuning_starts_from_any_format(exported, train_digits, tmp_path, name):
    tuned = train_digits(tmp_path, checkpoint_path=str(exported[name]), **STILL)
    assert_equal(weights_of(saved_values(tuned.checkpoint_path)), weights_of(read_all(exported[name])))


# ------------------------------------------------------------------------ files of other programs


@pytest.fixture
def foreign(tmp_path) -> dict[str, Path]:
    """Files as Keras alone writes them: nothing in them says what net they are."""
    model = nets_factory.make_model('lenet', 10, image_size=8, channels=1, depth_multiplier=0.25, seed=7)
    paths = {'keras': tmp_path / 'foreign.keras', 'weights.h5': tmp_path / 'foreign.weights.h5'}
    model.save(paths['keras'])
    model.save_weights(paths['weights.h5'])
    return paths


@pytest.mark.full
@pytest.mark.parametrize('name', ['keras', 'weights.h5'])
def test_foreign_files_are_read_by_layer_names(foreign, train_digits, digits_dir, tmp_path, name):
    model = nets_factory.make_model('lenet', 10, image_size=8, channels=1, depth_multiplier=0.25, seed=7)
    values = {key: variable.numpy() for key, variable in slim_variables(model).items()}
    assert_equal(read_all(foreign[name]), values)
    tuned = train_digits(tmp_path / 'run', checkpoint_path=str(foreign[name]), **STILL)
    assert_equal(weights_of(saved_values(tuned.checkpoint_path)), values)
    config = eval_config(foreign[name], dataset_dir=str(digits_dir), eval_dir=str(tmp_path / 'eval'), **DIGITS_NET)
    assert evaluation.evaluate(config)['num_examples'] == 360
    with pytest.raises(InputError, match=r'is not of alexnet_v2; there is no model\.json in .* give --model_name'):
        export(foreign[name], tmp_path / 'again.keras', format='keras')
    net = {'model_name': 'lenet', 'image_size': 8, 'depth_multiplier': 0.25}
    export(foreign[name], tmp_path / 'again.keras', format='keras', **net)


@pytest.mark.parametrize('ending', ['.keras', '.weights.h5'])
def test_foreign_files_in_bfloat16_are_read(tmp_path, capsys, ending):
    images = keras.Input((2,))
    model = keras.Model(images, keras.layers.Dense(3, name='fc', dtype='bfloat16')(images), name='net')
    path = str(tmp_path / f'small{ending}')
    model.save(path) if ending == '.keras' else model.save_weights(path)
    expected = tf.cast(model.layers[-1].kernel.value, tf.float32).numpy()
    weights, biases = tf.Variable(tf.zeros([2, 3])), tf.Variable(tf.ones([3]))
    checkpoints.restore(checkpoints.Checkpoint(path), {'net/fc/weights': weights, 'net/fc/biases': biases})
    np.testing.assert_array_equal(weights.numpy(), expected)
    assert not biases.numpy().any()
    assert inspect([path]) == 0
    (row,) = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith('net/fc/weights')]
    assert row[1:4] == ['2x3', 'bfloat16', f'{expected.astype(np.float64).mean():.5g}']


def test_a_foreign_file_of_another_net_is_answered_with_a_table(train_digits, tmp_path):
    images = keras.Input((8, 8, 1))
    features = keras.layers.Flatten()(keras.layers.Conv2D(8, 5, name='conv1')(images))
    logits = keras.layers.Dense(10, name='fc9')(keras.layers.BatchNormalization(name='norm')(features))
    model = keras.Model(images, logits, name='LeNet')
    model.compile('adam', 'mse')
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / 'other.keras')
    with pytest.raises(InputError) as error:
        train_digits(tmp_path / 'run', checkpoint_path=str(tmp_path / 'other.keras'))
    rows = {line.split()[0]: line.split()[1:] for line in str(error.value).splitlines()[2:-1]}
    assert rows['LeNet/fc4/weights'] == ['256x10', 'missing']
    assert rows['LeNet/fc9/biases'] == ['missing', '10']
    assert rows['LeNet/norm/moving_mean'] == ['missing', '128']
    assert not [name for name in rows if 'optimizer' in name]
    assert str(error.value).endswith('keep its initial value with --ignore_missing_vars')


# ------------------------------------------------------------------------ files that harm, or are damaged


def rewrite_zip(path: Path, **members: bytes | None) -> None:
    """Replaces members of a zip file, or leaves them out."""
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    renamed = {name.replace('_', '.'): value for name, value in members.items()}
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        for name, value in {**content, **renamed}.items():
            if value is not None:
                archive.writestr(name, value)


def edit_h5(path: Path, edit) -> None:
    with h5py.File(path, 'a') as file:
        edit(file)


def replace_h5(name: str, make):
    """Returns an edit that puts something else in the place of an object."""

    def edit(file: h5py.File) -> None:
        del file[name]
        make(file, name)

    return lambda path: edit_h5(path, edit)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_weight(path: Path) -> None:
    with h5py.File(path) as file:
        offset = file['layers/dense/vars/0'].id.get_offset()
    flip(path, offset + 5)


def write_lying_zip(path: Path, content: bytes, claimed: int, method: int = zipfile.ZIP_DEFLATED) -> None:
    """Writes a `.keras` file whose directory says that less is packed than there is, with the checksum of that."""
    with zipfile.ZipFile(path, 'w', method) as archive:
        archive.writestr('model.weights.h5', content)
        (info,) = archive.filelist  # the directory is written from it, last
        info.file_size, info.CRC = claimed, zlib.crc32(content[:claimed])


def one_large_chunk(file: h5py.File, name: str) -> None:
    """Makes a data set of 200 numbers, in a chunk of 400 MB."""
    file.create_dataset(name, (5, 5, 1, 8), 'f4', chunks=(5, 5, 1, 4_000_000), maxshape=(5, 5, 1, None))


def a_lying_chunk(file: h5py.File, name: str) -> None:
    """Makes a data set of 200 numbers, in whose chunk 64 MB are deflated."""
    dataset = file.create_dataset(name, (5, 5, 1, 8), 'f4', chunks=(5, 5, 1, 8), compression='gzip')
    dataset.id.write_direct_chunk((0, 0, 0, 0), zlib.compress(bytes(1 << 26)))


def numbers_of_three_bytes(file: h5py.File, name: str) -> None:
    kind = h5py.h5t.STD_I32LE.copy()
    kind.set_size(3)
    h5py.h5d.create(file.id, name.encode(), kind, h5py.h5s.create_simple((5, 5, 1, 8)))


def with_members(**members: bytes | None):
    return lambda path: rewrite_zip(path, **members)


def with_data(name: str, *arguments, **options):
    return replace_h5(name, lambda file, name: file.create_dataset(name, *arguments, **options))


def lying_zip(claimed: int, method: int):
    return lambda path: write_lying_zip(path, bytes(10), claimed, method)


VARIABLE, SHAPE = 'layers/conv2d/vars/0', (5, 5, 1, 8)
UNREADABLE, BOMB = 'not a checkpoint that can be read', 'would unpack 0 bytes to 400000000: refused as'
KERAS_HARMS = [
    (cut, UNREADABLE),
    (lambda path: flip(path, path.read_bytes().index(b'slim.json') // 2), UNREADABLE),
    (with_members(model_weights_h5=None), 'a zip file without model.weights.h5'),
    (with_members(model_weights_h5=b'\0' * (1 << 28)), 'refused as a decompression bomb'),
    (with_members(model_weights_h5=b'no HDF5'), UNREADABLE),
    (with_members(slim_json=b'[' * 100_000), UNREADABLE),
    (with_members(slim_json=b'{"global_step": "now"}'), 'not as this project writes it'),
    (with_members(slim_json=b'{"model": {"a": 1}}'), 'damaged, or from another version'),
    (
        with_members(slim_json=b'{"global_step": 1%030d}' % 0),
        'global_step in its slim.json is not from 0 to 9223372036854775807',
    ),
    (with_members(slim_json=b'{"global_step": -1}'), 'is not from 0 to'),
    (
        lying_zip(1000, zipfile.ZIP_DEFLATED),
        'model.weights.h5 in it holds 10 bytes, not 1000 as the zip directory says',
    ),
    (lying_zip(10, zipfile.ZIP_LZMA), 'compressed by method 14; Keras stores or deflates'),
    (lying_zip(10, zipfile.ZIP_BZIP2), 'compressed by method 12; Keras stores or deflates'),
]
H5_HARMS = [
    (cut, UNREADABLE),
    (flip_a_weight, 'LeNet/fc3/weights cannot be read: its checksum does not match'),
    (
        replace_h5(VARIABLE, lambda file, name: file.__setitem__(name, h5py.ExternalLink('other.h5', '/a'))),
        'is a link, which is not followed',
    ),
    (with_data(VARIABLE, SHAPE, 'f4', external=[('/etc/passwd', 0, 800)]), 'lies in another file, which is not read'),
    (with_data(VARIABLE, data=np.zeros(SHAPE, 'S20')), 'not numbers'),
    (with_data('slim.json', (1 << 40,), 'u1', chunks=True), 'refused as a decompression bomb'),
    (replace_h5(VARIABLE, one_large_chunk), BOMB),
    (replace_h5('slim.json', one_large_chunk), BOMB),
    (replace_h5(VARIABLE, a_lying_chunk), 'is compressed, as Keras never does; h5repack -f NONE makes it'),
    (with_data(VARIABLE, data=h5py.Empty('f4')), 'layers/conv2d/vars/0 in it is a data set of no shape'),
    (with_data('slim.json', data=h5py.Empty('u1')), 'slim.json in it is a data set of no shape'),
    (replace_h5(VARIABLE, numbers_of_three_bytes), 'LeNet/conv1/weights cannot be read: '),
    (
        lambda path: edit_h5(path, lambda file: file['layers/conv2d/vars'].attrs.__setitem__('name', 'a\x1b[2Jb')),
        r"'LeNet/a\\x1b\[2Jb/weights' in it is no name of a variable",
    ),
    (replace_h5(VARIABLE, lambda file, name: file.__setitem__('layers/conv2d/vars/layers', file['/'])), 'missing'),
    (
        lambda path: edit_h5(path, lambda file: file['layers/conv2d'].__setitem__('again', file['layers'])),
        'groups in groups in it',
    ),
]


HARMS = [*(('keras', *harm) for harm in KERAS_HARMS), *(('weights.h5', *harm) for harm in H5_HARMS)]


@pytest.mark.parametrize(('name', 'harm', 'message'), HARMS)
def test_files_that_harm_or_are_damaged_are_refused(exported, tmp_path, name, harm, message, capsys):
    path = tmp_path / exported[name].name
    shutil.copyfile(exported[name], path)
    harm(path)
    with pytest.raises(InputError, match=message):
        evaluation.evaluate(eval_config(path, eval_dir=str(tmp_path / 'eval')))
    with pytest.raises(InputError, match=message):
        export(path, tmp_path / 'again', format='slim')
    assert not (tmp_path / 'again').exists()
    if message not in ('missing', 'damaged, or from another version'):
        assert inspect([str(path)]) == 1
        assert capsys.readouterr().err.startswith(f'error: {path}: ')


def test_a_huge_variable_is_refused_before_memory_is_spent(exported, tmp_path, capsys):
    path = tmp_path / 'net.weights.h5'
    shutil.copyfile(exported['weights.h5'], path)
    with_data(VARIABLE, (50_000, 50_000), 'f4', chunks=True, compression='gzip')(path)
    assert inspect([str(path)]) == 1
    assert 'would unpack 0 bytes to 10000000000: refused as a decompression bomb' in capsys.readouterr().err


def test_a_zip_that_lies_about_its_size_is_not_unpacked(tmp_path):
    path = tmp_path / 'net.keras'
    write_lying_zip(path, bytes(1 << 27), 1000)
    tracemalloc.start()
    try:
        with pytest.raises(checkpoints.DamagedCheckpointError, match='not a checkpoint that can be read'):
            read_all(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 1 << 24


def test_groups_that_are_reached_by_many_paths_are_not_all_walked(exported, tmp_path, monkeypatch):
    """Two links from each group to the next are 2^11 paths here, and with more of them no end."""
    monkeypatch.setattr(keras_files, '_MAX_OBJECTS', 1000)
    path = tmp_path / 'net.weights.h5'
    shutil.copyfile(exported['weights.h5'], path)
    read_all(path)

    def add_lattice(file: h5py.File) -> None:
        group = file
        for _ in range(11):
            group, above = file.create_group(None), group
            above['left'] = above['right'] = group

    edit_h5(path, add_lattice)
    with pytest.raises(checkpoints.DamagedCheckpointError, match='more than 1000 groups and variables in it'):
        read_all(path)


class Tripwire:
    """Something that a pickle would call."""

    def __reduce__(self):
        return os.mkdir, ('/tmp/unpickled',)


def test_no_code_of_a_keras_file_is_run(exported, tmp_path):
    """A Lambda layer in the config is not even looked at; weights as a pickle are no weights."""
    path = tmp_path / 'net.keras'
    shutil.copyfile(exported['keras'], path)
    with zipfile.ZipFile(path) as archive:
        config = json.loads(archive.read('config.json'))
    code = {'class_name': '__lambda__', 'config': {'code': 'AAAA', 'defaults': None, 'closure': None}}
    config['config']['layers'][1] = {'class_name': 'Lambda', 'module': 'keras.layers', 'config': {'function': code}}
    rewrite_zip(path, config_json=json.dumps(config).encode())
    assert_equal(read_all(path), read_all(exported['keras']))
    np.save(tmp_path / 'pickle', np.array([Tripwire()], object), allow_pickle=True)
    rewrite_zip(path, model_weights_h5=(tmp_path / 'pickle.npy').read_bytes())
    with pytest.raises(checkpoints.DamagedCheckpointError):
        read_all(path)
    assert not Path('/tmp/unpickled').exists()


# ------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'output_path': ''}, '--output_path=: name a local folder'),
        ({'format': 'keras', 'output_path': 'net.h5'}, r'--output_path=net.h5: .* ends in .keras, for instance net'),
        ({'output_path': '/'}, '^--output_path=/: name a folder to create$'),
        (
            {'output_path': '[x]'},
            r'^--output_path=\[x\]: TensorFlow cannot read folders from paths with \[ or \\$',
        ),
        ({'output_path': 'back\\slash/net', 'format': 'saved_model'}, 'TensorFlow cannot read folders from paths with'),
        (
            {'labels_offset': 1, 'use_grayscale': True},
            r'flags contradict .*: --labels_offset=1 \(0\), --use_grayscale=True \(False\); leave them out',
        ),
    ],
)
def test_bad_options(trained, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        export(**{'checkpoint_path': trained.checkpoint_path, 'output_path': 'out', **options})
    assert list(tmp_path.iterdir()) == []


def test_averages_that_are_not_there(exported, tmp_path):
    with pytest.raises(InputError, match='has no moving averages, which --moving_average_decay asks for: leave it out'):
        export(exported['keras'], tmp_path / 'net.keras', format='keras', moving_average_decay=0.9)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('name', OUTPUTS)
def test_an_export_is_replaced_only_when_asked(trained, tmp_path, name):
    path = tmp_path / OUTPUTS[name]
    export(trained.checkpoint_path, path, format=name, moving_average_decay=0.9)
    before = files(path) if path.is_dir() else files(tmp_path)
    with pytest.raises(
        InputError, match=f'--output_path={path} already exists; choose another path, or add --overwrite'
    ):
        export(trained.checkpoint_path, path, format=name)
    assert (files(path) if path.is_dir() else files(tmp_path)) == before
    export(trained.checkpoint_path, path, format=name, overwrite=True)
    assert_equal(weights_of(read_all(path)), weights_of(saved_values(trained.checkpoint_path)))
    assert [other.name for other in tmp_path.iterdir()] == [OUTPUTS[name]]


@pytest.mark.parametrize(
    ('name', 'there', 'message'),
    [
        ('slim', 'folder', 'holds precious.txt, which no export has written'),
        ('slim', 'file', 'exists and is not a folder'),
        ('keras', 'folder', 'exists and is not a file'),
        ('keras', 'link to a file', 'exists and is not a file'),
        ('keras', 'pipe', 'exists and is not a file'),
    ],
)
def test_what_is_no_export_is_never_replaced(trained, tmp_path, name, there, message):
    path = tmp_path / OUTPUTS[name]
    occupy(path, there)
    before = snapshot(tmp_path)
    with pytest.raises(InputError, match=message):
        export(trained.checkpoint_path, path, format=name, overwrite=True)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize('name', OUTPUTS)
def test_what_does_not_read_back_is_not_kept(trained, tmp_path, monkeypatch, name):
    path = export(trained.checkpoint_path, tmp_path / OUTPUTS[name], format=name)
    before = read_all(path)
    monkeypatch.setattr(
        weights, 'compare_spec', lambda *_: checkpoints.compare(checkpoints.find_checkpoint(str(path)), {})
    )
    with pytest.raises(InputError, match=r'does not read back as written: .*; nothing was kept'):
        export(trained.checkpoint_path, path, format=name, overwrite=True)
    assert_equal(read_all(path), before)
    assert [other.name for other in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize('name', OUTPUTS)
def test_an_export_that_cannot_be_written(trained, tmp_path, monkeypatch, name):
    def fail(*_, **__):
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'rename', fail)
    with pytest.raises(InputError, match=r'--output_path=\S+: \[Errno 28\] No space left on device'):
        export(trained.checkpoint_path, tmp_path / OUTPUTS[name], format=name)
    assert list(tmp_path.iterdir()) == []


# ------------------------------------------------------------------------ inspection


@pytest.mark.parametrize('name', OUTPUTS)
def test_inspection_shows_statistics_of_every_format(exported, capsys, name):
    assert inspect([str(exported[name])]) == 0
    lines = capsys.readouterr().out.splitlines()
    kinds = {'slim': 'TensorFlow checkpoint', 'keras': '.keras', 'weights.h5': '.weights.h5'}
    assert lines[0].endswith(f': {kinds[name]}, step 300')
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.startswith('LeNet/')}
    values = read_all(exported[name])
    assert set(rows) == {key for key in values if key.startswith('LeNet/')}
    for key, (shape, dtype, *numbers) in rows.items():
        value = values[key].astype(np.float64)
        assert (shape, dtype) == ('x'.join(map(str, value.shape)), 'float32')
        expected = [value.mean(), value.std(), value.min(), value.max()]
        assert [float(number) for number in numbers] == pytest.approx(expected, rel=1e-4)
    assert '"model_name": "lenet"' in '\n'.join(lines)


def test_a_command_that_fails_prints_one_line(tmp_path):
    """And nothing of what TensorFlow says while it is loaded, by which time this is too late to be stopped."""
    inspect_nothing = ['-m', 'engine.checkpoints', str(tmp_path)]
    export_nothing = ['export_image_classifier.py', f'--checkpoint_path={tmp_path}', '--output_path=x', '--format=slim']
    for command in (inspect_nothing, export_nothing):
        finished = run_python(*command)
        assert (finished.returncode, finished.stdout) == (1, '')
        assert finished.stderr == f'error: --checkpoint_path={tmp_path}: no checkpoint in this folder\n'


def test_inspection_counts_what_is_not_finite(tmp_path, capsys):
    values = {'net/weights': tf.constant([1.0, np.nan, 3.0, np.inf]), 'net/words': tf.constant(['a', 'b'])}
    prefix = checkpoints.save(str(tmp_path), 7, values, 5)
    (tmp_path / 'config.cfg').write_text('--batch_size=32\n')
    assert inspect([prefix]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f'{prefix}: TensorFlow checkpoint, step 7'
    assert lines[2].split() == ['net/weights', '4', 'float32', '2', '1', '1', '3', '2']
    assert lines[3].split() == ['net/words', '2', 'object']
    assert lines[-3:] == [f'{tmp_path}/model.json: none', f'{tmp_path}/config.cfg:', '  --batch_size=32']


@pytest.mark.parametrize('content', [b'', b'text', b'PK\x03\x04', b'\x89HDF\r\n\x1a\n'])
def test_inspection_of_something_else(tmp_path, capsys, content):
    path = tmp_path / 'file'
    path.write_bytes(content)
    assert inspect([str(path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('error: ')
    assert str(path) in line
