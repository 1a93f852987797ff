"""Folders of images, one a class, read as they are.

collection = open_folder('/data/pets')      # train/cat/1.jpg, validation/dog/7.png, ...
"""

from collections.abc import Sequence

import numpy as np

from datasets.class_folders import find_folders
from datasets.collection import Collection
from datasets.examples import FileExamples
from datasets.records import existing_folder
from datasets.regular_files import check_local
from datasets.source import shuffled
from support.errors import InputError


def open_folder(dataset_dir: str | None, classes_of_net: Sequence[str] | None = None) -> Collection:
    """Opens a folder of class folders, or of splits that hold these.

    Args:
        dataset_dir: The folder.
        classes_of_net: For a folder other than the one that a net was trained on, see `find_folders`.

    Raises:
        InputError: no folder, no classes; on opening a split, a class without images.
    """
    if dataset_dir is None:
        raise InputError('--dataset_dir is missing: the folder of the images')
    check_local('dataset_dir', dataset_dir)
    folders = find_folders(existing_folder(dataset_dir), classes_of_net)

    def open_split(split: str) -> FileExamples:
        # As a conversion orders them: by class, as they lie there, a slice would hold some classes only.
        images = shuffled(folders.list_images(split))
        return FileExamples([image.path for image in images], np.array([image.label for image in images], np.int64))

    names = folders.class_names
    is_one_split = len(set(folders.paths.values())) < len(folders.paths)
    return Collection(dataset_dir, tuple(folders.paths), len(names), names, 3, open_split, is_one_split)
