"""Archives and folders for tests, and what of a source does not depend on where they lie."""

import hashlib
import io
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

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


def write_files(folder: Path, contents: Mapping[str, bytes]) -> Path:
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


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
