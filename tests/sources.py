"""Archives and folders for tests, and what of a source does not depend on where they lie."""

import contextlib
import functools
import hashlib
import http.server
import io
import struct
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from configs.conversion import ConvertConfig
from configs.options import make_config
from datasets.conversion.convert import convert
from datasets.source import Source

SharedPath = Callable[[str], Path]
IMAGE = b'\xff\xd8\xff'


def tar_bytes(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode='w') as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def convert_to(source_dir: Path, dataset_dir: Path, name: str = 'image_folder', **options: Any) -> Path:
    """Converts a data set, and returns the folder of its records."""
    folders = {'source_dir': str(source_dir), 'dataset_dir': str(dataset_dir)}
    assert convert(make_config(ConvertConfig, dataset_name=name, **folders, **options)) == 0
    return dataset_dir


def image_file(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The file that Pillow makes of an image."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_header(width: int, height: int) -> bytes:
    """Returns the header of a PNG of the given size, without its pixels."""
    return b'\x89PNG\r\n\x1a\n' + struct.pack('>I4sII', 13, b'IHDR', width, height) + b'\x08\x02\0\0\0'


def record(**features: bytes | int) -> bytes:
    """A serialized tf.train.Example; `__` in a key stands for `/`."""

    def feature(value: bytes | int) -> tf.train.Feature:
        if isinstance(value, bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=[value]))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[value]))

    made = {key.replace('__', '/'): feature(value) for key, value in features.items()}
    return tf.train.Example(features=tf.train.Features(feature=made)).SerializeToString()


def write_files(folder: Path, contents: Mapping[str, bytes]) -> Path:
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


class _SilentHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def web_server(folder: Path) -> Iterator[str]:
    """Yields the host and port of a server on loopback that has the files of a folder."""
    handler = functools.partial(_SilentHandler, directory=str(folder))
    with http.server.ThreadingHTTPServer(('localhost', 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f'localhost:{server.server_port}'
        server.shutdown()
        thread.join()


def idx(array: np.ndarray) -> bytes:
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f'>{array.ndim}I', *array.shape) + array.tobytes()


def mnist_contents(images: np.ndarray, labels: Sequence[int], num_train: int) -> dict[str, bytes]:
    """The four files of MNIST, of uint8 [images, height, width]."""
    parts, numbers = {'train': slice(num_train), 't10k': slice(num_train, None)}, np.array(labels, np.uint8)
    return {f'{name}-images-idx3-ubyte': idx(images[part]) for name, part in parts.items()} | {
        f'{name}-labels-idx1-ubyte': idx(numbers[part]) for name, part in parts.items()
    }


def described(source: Source) -> dict[str, list[tuple[str, int, str]]]:
    """Name, label and checksum of each image: all but where it lies."""
    return {
        split: [(image.name, image.label, hashlib.sha256(source.read(image)).hexdigest()) for image in images]
        for split, images in source.splits.items()
    }


def names_and_labels(source: Source) -> dict[str, list[tuple[str, int]]]:
    return {split: [(image.name, image.label) for image in images] for split, images in source.splits.items()}


def class_folders(*names: str) -> dict[str, bytes]:
    """The contents of files that hold just so much of an image."""
    return dict.fromkeys(names, IMAGE)
