"""The content of an import's `model.json`: sizes from the source, the rest from flags and the data set.

spec = describe(config.net, 'bvlc_alexnet', sizes)
"""

import dataclasses

from configs.importing import ImportNetOptions
from datasets import dataset_factory
from engine.classifiers.label_names import read_label_names
from engine.classifiers.model_spec import ModelSpec
from importing.sizes import Sizes
from nets import nets_factory
from preprocessing import preprocessing_factory
from support.errors import InputError


def describe(options: ImportNetOptions, model_name: str, sizes: Sizes, described: ModelSpec | None = None) -> ModelSpec:
    """Returns the spec of a net that is imported.

    Args:
        options: Of the import.
        model_name: Key of `nets_factory.NETS`.
        sizes: As the source says.
        described: What an export of this project says of itself; flags go before it.

    Raises:
        InputError: the data set, or the names of classes, are of another number of classes.
    """
    data = _describe_data(options, sizes.num_classes, described)
    if options.labels_path:
        names = read_label_names(options.labels_path, sizes.num_classes, data.labels_offset)
        data = dataclasses.replace(data, label_names=names)
    own = described.preprocessing_name if described else nets_factory.get_net(model_name).preprocessing
    preprocessing = options.preprocessing_name or own
    use_grayscale = sizes.channels == 1 and not preprocessing_factory.keeps_grayscale(preprocessing)
    return ModelSpec(
        model_name=model_name,
        preprocessing_name=preprocessing,
        use_grayscale=use_grayscale,
        global_pool=described is not None and described.global_pool,
        **dataclasses.asdict(sizes),
        **dataclasses.asdict(data),
    )


@dataclasses.dataclass(frozen=True)
class _Data:
    """The fields of a spec that say what a net was trained on."""

    dataset_name: str
    dataset_dir: str
    labels_offset: int
    label_names: tuple[str, ...]


def _describe_data(options: ImportNetOptions, num_classes: int, described: ModelSpec | None) -> _Data:
    """Returns the data options of the flags, or else of the source."""
    asked = (options.dataset_name, options.dataset_dir, options.labels_offset)
    if described is not None and asked == (None, None, None):
        return _Data(**{field.name: getattr(described, field.name) for field in dataclasses.fields(_Data)})
    name = options.dataset_name or ('imagenet' if options.dataset_dir else '')
    classes, names = _find_classes(name, options.dataset_dir)
    offset = _find_labels_offset(options.labels_offset, name, classes, num_classes)
    return _Data(name, options.dataset_dir or '', offset, names[offset:])


def _find_classes(name: str, dataset_dir: str | None) -> tuple[int | None, tuple[str, ...]]:
    """Returns how many classes a data set has, and their names; None without a data set."""
    if not name:
        return None, ()
    if dataset_dir is None and name in dataset_factory.DATASETS:
        return dataset_factory.DATASETS[name].num_classes, ()
    collection = dataset_factory.open_collection(name, dataset_dir)
    return collection.num_classes, collection.label_names


def _find_labels_offset(asked: int | None, name: str, classes: int | None, found: int) -> int:
    """Returns how many classes of the data set stand before those of the source.

    Raises:
        InputError: that many there are not.
    """
    if classes is None:
        return asked or 0
    offset = (1 if classes == found + 1 else 0) if asked is None else asked
    if classes - offset != found:
        less = f' less --labels_offset={offset}' if asked is not None else ''
        raise InputError(
            f'the source has {found} classes, and --dataset_name={name} {classes}{less}; name the data set that it was '
            'trained on, or none'
        )
    return offset
