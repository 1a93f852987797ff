"""Recognises files that are not checkpoints, by content and name ending, and names the command that reads them.

describe('/tmp/net.pb')          # 'a frozen graph of TensorFlow 1 (GraphDef), which cannot be read here; ...'
"""

import os
import zipfile
from collections.abc import Callable

import h5py
import tensorflow as tf

from engine.checkpoints.keras_files import HDF5_MAGIC, ZIP_MAGIC

_START = 64
_IMPORT = 'import_weights.py --source={path} --model_name=... --train_dir=... makes a checkpoint of it'
_RUN = 'evaluation and prediction run it'
_SAVE_SAFELY = (
    "a pickle, which runs code when it is read, so it is not read here; save a state_dict of PyTorch's with "
    'safetensors.torch.save_file, which import_weights.py takes'
)
_SAVED_MODEL = 'the graph of a SavedModel; give its folder, which evaluation and prediction run: {folder}'
_FROZEN = (
    'a frozen graph of TensorFlow 1 (GraphDef), which cannot be read here; give the checkpoint it was made from, or '
    'convert it (python -m tf2onnx.convert --graphdef) for import_weights.py'
)
_KERAS_2 = (
    'an HDF5 file as Keras 2 wrote them, which cannot be read here; save it anew with Keras 3, '
    "keras.saving.load_model('{name}').save('net.keras')"
)
_ONNX = f'an ONNX file, not a checkpoint; {_RUN}, and {_IMPORT}'
_TFLITE = f'a TFLite file, not a checkpoint; {_RUN}'
_SAFETENSORS = f'weights of PyTorch (.safetensors), not a checkpoint; {_IMPORT}'
_NUMPY = 'an array of NumPy, which cannot be read here; weights come as a checkpoint, .keras, .onnx or .safetensors'
_CAFFE = (
    'a net of Caffe, which cannot be read here; convert it to ONNX, or take one of the ONNX model zoo, for '
    'import_weights.py'
)
UNKNOWN = 'neither a TensorFlow checkpoint nor a .keras or .weights.h5 file, or cut short'

_MAGIC = {
    b'model_checkpoint_path': 'the file that says which checkpoint of a folder is the latest; give the folder {folder}',
    b'\x93NUMPY': _NUMPY,
    b'\x1f\x8b': 'compressed by gzip; unpack it first (tar -xf), and give the checkpoint in it',
    b'BZh': 'compressed by bzip2; unpack it first',
    b'\xfd7zXZ\0': 'compressed by xz; unpack it first',
    b'\xff\xd8\xff': 'a JPEG image, not a net',
    b'\x89PNG': 'a PNG image, not a net',
    b'GGUF': 'a GGUF file of a language model, which cannot be read here',
}
# Name endings of other programs' files, used if the content is not recognised.
_ENDINGS = {
    '.onnx': _ONNX,
    '.tflite': _TFLITE,
    '.safetensors': _SAFETENSORS,
    **dict.fromkeys(('.caffemodel', '.prototxt'), _CAFFE),
    **dict.fromkeys(('.pth', '.pt', '.pkl', '.pickle'), _SAVE_SAFELY),
    '.pbtxt': 'a graph of TensorFlow as text, without weights, which cannot be read here',
    '.pb': 'a graph of TensorFlow or another file of protocol buffers, which cannot be read here, or damaged',
    **dict.fromkeys(('.engine', '.plan', '.trt'), 'an engine of TensorRT, which cannot be read here'),
    **dict.fromkeys(('.mlmodel', '.mlpackage'), 'a net of Core ML, which cannot be read here'),
}


def describe(path: str) -> str:
    """Describes a file that is not a checkpoint, with advice.

    Raises:
        OSError or tf.errors.OpError: the file cannot be read.
    """
    with tf.io.gfile.GFile(path, 'rb') as file:
        start, size = file.read(_START), file.size()
    return _of_content(path, start, size).format(
        path=path, folder=os.path.dirname(path) or '.', name=os.path.basename(path)
    )


def _of_content(path: str, start: bytes, size: int) -> str:
    if not size:
        return 'an empty file'
    found = next((what for magic, what in _MAGIC.items() if start.startswith(magic)), None)
    found = found or next((what for is_it, what in _CHECKS if is_it(path, start, size)), None)
    return found or _ENDINGS.get(os.path.splitext(path)[1].lower(), UNKNOWN)


def inside_archive(path: str) -> str | None:
    """Describes a zip archive or HDF5 file not written by Keras 3; returns None for Keras 3's and for damaged files."""
    if '://' in path:
        return None
    try:
        with open(path, 'rb') as file:
            start = file.read(len(HDF5_MAGIC))
        what = _in_zip(path) if start.startswith(ZIP_MAGIC) else _in_hdf5(path)
    except (OSError, ValueError, RuntimeError, KeyError, zipfile.BadZipFile):
        return None  # the reader will report the error
    return None if what is None else what.format(path=path, name=os.path.basename(path))


def _in_zip(path: str) -> str | None:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    if any(name.endswith('data.pkl') for name in names):
        return _SAVE_SAFELY
    if names and all(name.endswith('.npy') for name in names):
        return _NUMPY.replace('an array', 'arrays', 1)
    if any(name.endswith(('.index', 'saved_model.pb')) for name in names):
        return 'a zip archive; unpack it first, and give what is in it'
    return None


def _in_hdf5(path: str) -> str | None:
    with h5py.File(path, 'r') as file:
        return _KERAS_2 if 'layer_names' in file.attrs or 'model_weights' in file else None


def _is_tflite(path: str, start: bytes, size: int) -> bool:
    return start[4:8] == b'TFL3'


def _is_safetensors(path: str, start: bytes, size: int) -> bool:
    return start[8:9] == b'{' and int.from_bytes(start[:8], 'little') < size


def _is_pickle(path: str, start: bytes, size: int) -> bool:
    return start[:1] == b'\x80' and start[1:2] in (b'\2', b'\3', b'\4', b'\5')


def _is_saved_model(path: str, start: bytes, size: int) -> bool:
    # The bytes are saved_model_schema_version = 1 and the first of meta_graphs.
    return os.path.basename(path) == 'saved_model.pb' or start.startswith(b'\x08\x01\x12')


def _is_frozen(path: str, start: bytes, size: int) -> bool:
    """Returns whether a file begins like a GraphDef: a node (field 1) with its name (1), then its operator (2)."""
    try:
        tag, place = start[0], 1
        while start[place] & 0x80:
            place += 1
        name = place + 1
        return tag == 0x0A and start[name] == 0x0A and start[name + 2 + start[name + 1]] == 0x12
    except IndexError:
        return False


def is_onnx(start: bytes) -> bool:
    """Returns whether a file begins like an ONNX model: IR version (field 1), then producer (2) or graph (7)."""
    return start[:1] == b'\x08' and 3 <= start[1] <= 64 and start[2:3] in (b'\x12', b'\x3a')


_CHECKS: tuple[tuple[Callable[[str, bytes, int], bool], str], ...] = (
    (_is_tflite, _TFLITE),
    (_is_safetensors, _SAFETENSORS),
    (_is_pickle, _SAVE_SAFELY),
    (_is_saved_model, _SAVED_MODEL),
    (_is_frozen, _FROZEN),
    (lambda path, start, size: is_onnx(start), _ONNX),
)
