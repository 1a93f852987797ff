"""Sources of conversion by data set name.

source = open_source(SourceOptions(dataset_name='imagenet', source_dir='/data/ilsvrc'), '/tmp/work')
"""

import importlib
from types import ModuleType

from configs.conversion import SourceOptions
from datasets import class_folders
from datasets.conversion.recipe import TFDS_PREFIX, layout_of
from datasets.files import check_folder
from datasets.source import Source
from support.errors import InputError

_FOLDERS = ('imagenet', 'image_folder')  # cannot be downloaded
_IMAGENET_FILES = ('validation_labels_file', 'class_names_file', 'bounding_box_dir')


def check_options(options: SourceOptions) -> str:
    """Returns the name of the data set if the options are valid; opens nothing.

    Raises:
        InputError: A required flag is missing, a flag does not apply to this data set, or a folder does not exist.
    """
    name, source_dir = options.dataset_name, options.source_dir
    if name is None:
        raise InputError('--dataset_name is missing: imagenet, image_folder, cifar10, mnist, flowers or tfds:<name>')
    layout_of(name)
    for flag in _IMAGENET_FILES:
        if name != 'imagenet' and getattr(options, flag) is not None:
            raise InputError(f'--{flag}={getattr(options, flag)}: only for --dataset_name=imagenet, not for {name}')
    if source_dir is None and name in _FOLDERS:
        raise InputError(f'--source_dir is missing: the folder of the images of {name}')
    if source_dir is not None:
        check_folder('source_dir', source_dir)
    return name


def open_source(options: SourceOptions, work_dir: str) -> Source:
    """Lists the images of a data set; without `source_dir` it is downloaded.

    `work_dir` receives decompressed archives and links to downloaded ones.

    Raises:
        InputError: The options or files are invalid.
    """
    name, source_dir = check_options(options), options.source_dir
    if name.startswith(TFDS_PREFIX):
        return _module('tfds').open_source(name.removeprefix(TFDS_PREFIX), source_dir)
    if name == 'image_folder':
        assert source_dir is not None  # as checked
        return class_folders.open_source(source_dir)
    if name == 'imagenet':
        return _module(name).open_source(
            source_dir, options.validation_labels_file, options.class_names_file, options.bounding_box_dir
        )
    if source_dir is None:
        source_dir = _module('tfds').download_archives(name, work_dir)
    return _module(name).open_source(source_dir, work_dir)


def _module(name: str) -> ModuleType:
    return importlib.import_module(f'datasets.conversion.{name}')
