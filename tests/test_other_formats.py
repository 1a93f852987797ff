"""Files of other programs that are given as checkpoints: each is named as what it is, with what takes it."""

import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import tensorflow as tf

from configs import early
from engine import checkpoints
from engine.classifiers.loading import find_runtime
from support.errors import InputError
from tests.sources import write_files

v1 = tf.compat.v1


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w') as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def frozen() -> bytes:
    with tf.Graph().as_default() as graph:
        v1.placeholder(tf.float32, [None, 8, 8, 3], name='input')
        return graph.as_graph_def().SerializeToString()


def array(file: io.BytesIO) -> bytes:
    np.save(file, np.zeros(3))
    return file.getvalue()


def arrays(file: io.BytesIO) -> bytes:
    np.savez(file, a=np.zeros(3), b=np.zeros(2))
    return file.getvalue()


def of_keras_2(file: io.BytesIO) -> bytes:
    with h5py.File(file, 'w') as opened:
        opened.create_group('model_weights/conv1/conv1')
    return file.getvalue()


IMPORT = 'import_weights.py --source={path} --model_name=... --train_dir=... makes a checkpoint of it'
TORCH = f'weights of PyTorch (.safetensors), not a checkpoint; {IMPORT}'
ONNX = b'\x08\x08\x12\x07pytorch'
KERAS_2 = (
    'an HDF5 file as Keras 2 wrote them, which cannot be read here; save it anew with Keras 3, '
    "keras.saving.load_model('net.h5').save('net.keras')"
)
PICKLE = 'a pickle, which runs code when it is read, so it is not read here; save a state_dict of PyTorch'
# Name -> content, what is said.
OTHERS: dict[str, tuple[Callable[[], bytes], str]] = {
    'frozen.pb': (frozen, 'a frozen graph of TensorFlow 1 (GraphDef), which cannot be read here; give the checkpoint'),
    'saved_model.pb': (lambda: b'\x08\x01\x12\x02\n\0', 'the graph of a SavedModel; give its folder, which evaluation'),
    'net.safetensors': (lambda: struct.pack('<Q', 2) + b'{}', TORCH),
    'NET.SafeTensors': (lambda: b'damaged', TORCH),
    'NET.ONNX': (lambda: ONNX, f'an ONNX file, not a checkpoint; evaluation and prediction run it, and {IMPORT}'),
    'net': (lambda: ONNX, 'an ONNX file, not a checkpoint; evaluation and prediction run it'),
    'net.TFLITE': (lambda: b'\x1c\0\0\0TFL3', 'a TFLite file, not a checkpoint; evaluation and prediction run it'),
    'net.npy': (lambda: array(io.BytesIO()), 'an array of NumPy, which cannot be read here'),
    'net.npz': (lambda: arrays(io.BytesIO()), 'arrays of NumPy, which cannot be read here'),
    'bvlc_alexnet.caffemodel': (lambda: b'\n\x07AlexNet\x12', 'a net of Caffe, which cannot be read here; convert it'),
    'deploy.prototxt': (lambda: b'name: "AlexNet"\n', 'a net of Caffe, which cannot be read here'),
    'net.pth': (lambda: zipped(**{'archive/data.pkl': b'x', 'archive/data/0': b'y'}), PICKLE),
    'old.pt': (lambda: pickle.dumps({'a': 1}, protocol=2), PICKLE),
    'net.pkl': (lambda: pickle.dumps({'a': 1}), PICKLE),
    'net.h5': (lambda: of_keras_2(io.BytesIO()), KERAS_2),
    'slim.tar.gz': (lambda: b'\x1f\x8b\x08\0', 'compressed by gzip; unpack it first (tar -xf), and give'),
    'checkpoints.zip': (lambda: zipped(**{'run/model.ckpt-7.index': b''}), 'a zip archive; unpack it first'),
    'checkpoint': (lambda: b'model_checkpoint_path: "x"\n', 'the file that says which checkpoint of a folder is the'),
    'cat.jpg': (lambda: b'\xff\xd8\xff\xe0', 'a JPEG image, not a net'),
    'empty.ckpt': (lambda: b'', 'an empty file'),
    'graph.pbtxt': (lambda: b'node {\n}\n', 'a graph of TensorFlow as text, without weights'),
    **{
        name: (lambda: b'text', 'neither a TensorFlow checkpoint nor a .keras or .weights.h5 file, or cut short')
        for name in ('net.ckpt', 'net.keras', 'net.weights.h5')
    },
}  # fmt: skip


@pytest.mark.parametrize('name', OTHERS)
def test_each_is_named(tmp_path: Path, name: str) -> None:
    content, message = OTHERS[name]
    path = tmp_path / name
    path.write_bytes(content())
    with pytest.raises(InputError) as error:
        checkpoints.find_checkpoint(str(path), 'flag')
    assert str(error.value).startswith(f'--flag={path}: {message.format(path=path)}')
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('name', 'content', 'module'),
    [('NET.ONNX', b'x', 'onnx_runtime'), ('net.TFLite', b'x', 'tflite_runtime'), ('net', ONNX, 'onnx_runtime')],
)
def test_files_are_known_by_endings_in_any_case_and_onnx_by_its_content(
    tmp_path: Path, name: str, content: bytes, module: str
) -> None:
    (tmp_path / name).write_bytes(content)
    opener = find_runtime(str(tmp_path / name))
    assert opener is not None
    assert opener.__module__.endswith(module)


@pytest.mark.parametrize(
    ('names', 'message'),
    [
        # As TensorFlow Serving has them.
        (('9/saved_model.pb', '10/saved_model.pb'), 'use the SavedModel inside it: {}/10$'),
        (('net.onnx', 'NET.TFLITE'), 'use the file inside it: {0}/NET.TFLITE, {0}/net.onnx$'),
    ],
)
def test_a_folder_of_what_is_run(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    write_files(tmp_path, dict.fromkeys(names, b''))
    for find in (checkpoints.find_checkpoint, early.check_checkpoint):
        with pytest.raises(InputError, match=f'no checkpoint in this folder; {message.format(tmp_path)}'):
            find(str(tmp_path))


def test_pipes_are_no_files(tmp_path: Path) -> None:
    for path in ('net.ckpt', 'checkpoint'):
        os.mkfifo(tmp_path / path)
    with pytest.raises(InputError, match=r'net.ckpt: a pipe or a device, not a checkpoint'):
        checkpoints.find_checkpoint(str(tmp_path / 'net.ckpt'))
    assert checkpoints.latest_checkpoint(str(tmp_path)) is None


@pytest.mark.parametrize('path', ['foo://bucket/model.ckpt-1', 'foo://bucket/run', 'foo://bucket/net.keras'])
def test_a_scheme_that_nobody_knows(path: str) -> None:
    message = r"^--checkpoint_path=foo://.*: cannot be read: File system scheme 'foo' not implemented"
    with pytest.raises(InputError, match=message):
        checkpoints.find_checkpoint(path)
