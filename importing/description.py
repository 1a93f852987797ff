"""The `model.json` of an import: sizes from the source, the rest from flags and the data set.

spec = describe(config.net, 'bvlc_alexnet', source)
find_depth_multiplier('alexnet_v2', [16, 48, 96, 96, 64, 1024, 1024])       # 0.25
"""

from collections.abc import Sequence
from typing import Any

from configs.importing import ImportNetOptions
from datasets import dataset_factory
from engine.classifiers.label_names import read_label_names
from engine.classifiers.model_spec import ModelSpec
from importing.layers import NetLayer, SourceLayer, sketch_layers
from importing.sources import Source
from nets import nets_factory
from preprocessing import preprocessing_factory
from support.errors import InputError

_OF_DATA = ('dataset_name', 'dataset_dir', 'labels_offset', 'label_names')  # fields of ModelSpec about the data set
_HALVES, _DIGITS = 6, 8  # 1/32 is the narrowest that anyone uses
_HIGHEST = 16.0  # as for the flag


def describe(options: ImportNetOptions, model_name: str, source: Source) -> ModelSpec:
    """Returns the spec of an imported net; flags take precedence over the source's own description.

    Raises:
        InputError: The source takes images of another size, or another number of classes than the data set or names.
    """
    net, described, asked_size = nets_factory.get_net(model_name), source.described, options.image_size
    if source.image_size is not None and asked_size not in (None, source.image_size):
        raise InputError(
            f'--image_size={asked_size}: {source.path} takes images of {source.image_size} px; leave it out'
        )
    *widths, num_classes = find_widths(source.layers) or [1]
    data = _describe_data(options, num_classes, described)
    if options.labels_path:
        data['label_names'] = read_label_names(options.labels_path, num_classes, data['labels_offset'])
    preprocessing = options.preprocessing_name or (described.preprocessing_name if described else net.preprocessing)
    return ModelSpec(
        model_name=model_name,
        num_classes=num_classes,
        image_size=source.image_size or asked_size or net.image_size,
        channels=source.channels,
        preprocessing_name=preprocessing,
        depth_multiplier=find_depth_multiplier(model_name, widths),
        use_grayscale=source.channels == 1 and not preprocessing_factory.keeps_grayscale(preprocessing),
        global_pool=described is not None and described.global_pool,
        **data,
    )


def _describe_data(options: ImportNetOptions, num_classes: int, described: ModelSpec | None) -> dict[str, Any]:
    """Returns a spec's fields about the training data, from the flags or else from the source."""
    asked = (options.dataset_name, options.dataset_dir, options.labels_offset)
    if described is not None and asked == (None, None, None):
        return {name: getattr(described, name) for name in _OF_DATA}
    name = options.dataset_name or ('imagenet' if options.dataset_dir else '')
    classes, names = _find_classes(name, options.dataset_dir)
    offset = _find_labels_offset(options.labels_offset, name, classes, num_classes)
    return dict(zip(_OF_DATA, (name, options.dataset_dir or '', offset, names[offset:]), strict=True))


def _find_classes(name: str, dataset_dir: str | None) -> tuple[int | None, tuple[str, ...]]:
    """Returns the number of classes of a data set and their names; (None, ()) without a data set."""
    if not name:
        return None, ()
    if dataset_dir is None and name in dataset_factory.DATASETS:
        return dataset_factory.DATASETS[name].num_classes, ()
    collection = dataset_factory.open_collection(name, dataset_dir)
    return collection.num_classes, collection.label_names


def _find_labels_offset(asked: int | None, name: str, classes: int | None, found: int) -> int:
    """Returns the number of classes in the data set before the source's first class.

    Raises:
        InputError: The numbers of classes do not match.
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


def find_widths(layers: Sequence[SourceLayer] | Sequence[NetLayer]) -> list[int]:
    """Returns the filters or units of each layer with a kernel, including the last."""
    shapes = [layer.shapes if isinstance(layer, SourceLayer) else layer.shapes[0] for layer in layers]
    return [each['kernel'][0] for each in shapes if 'kernel' in each]


def find_depth_multiplier(model_name: str, found: Sequence[int]) -> float:
    """Returns the depth multiplier, rounded as a user would type it, that fits most widths; 1 if none fits.

    Args:
        model_name: Key of `nets_factory.NETS`.
        found: Width of each layer with a kernel except the last, which the multiplier does not change.
    """
    base = find_widths(sketch_layers(lambda: nets_factory.make_model(model_name, 2)))[:-1]
    pairs = list(zip(found, base, strict=False))
    # Widths are rounded to whole filters; in nets with two groups, within each group.
    agreeing = max((_agreeing(pairs, slack) for slack in (0.5, 1.0)), key=len)
    if 2 * len(agreeing) < len(pairs) or not agreeing:  # another net, best compared at its default width
        return 1.0
    low, high = max(lower for lower, _ in agreeing), min(upper for _, upper in agreeing)
    middle = (low + high) / 2
    halves = (round(middle * 2**power) / 2**power for power in range(_HALVES))
    decimals = (round(middle, digits) for digits in range(_DIGITS))
    chosen = next((value for value in (*halves, *decimals) if low < value < high), middle)
    return chosen if 0 < chosen <= _HIGHEST else 1.0


def _agreeing(pairs: Sequence[tuple[int, int]], slack: float) -> list[tuple[float, float]]:
    """Returns the intervals of multipliers, per layer, for the largest set of layers that share a multiplier."""
    intervals = [((width - slack) / full, (width + slack) / full) for width, full in pairs]
    starts = [lower for lower, _ in intervals]  # the largest overlap begins at the start of one of them
    sets = ([(lower, upper) for lower, upper in intervals if lower <= start < upper] for start in starts)
    return max(sets, key=len, default=[])
