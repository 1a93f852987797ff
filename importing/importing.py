"""The steps of an import: check, read, make the net, match, compare, write.

import_weights(make_config(ImportConfig, source='net.onnx', model_name='bvlc_alexnet', train_dir='/tmp/caffe'))
"""

from configs.importing import ImportConfig
from importing import folder
from importing.description import describe
from importing.layers import fill, net_layers, pair, sketch_layers
from importing.sources import open_source
from nets import nets_factory
from preprocessing.preprocessing_factory import keeps_grayscale
from support.errors import InputError


def import_weights(config: ImportConfig) -> str:
    """Imports weights, and prints the comparisons with the source.

    Returns:
        The train_dir that was written.

    Raises:
        InputError: Any error that the user can correct; nothing is written then.
    """
    options = config.source
    _check_names(options.model_name, config.net.preprocessing_name)
    path = folder.check_train_dir(options.train_dir, options.overwrite)
    source = open_source(options.source)
    model_name = options.model_name or (source.described.model_name if source.described else None)
    if model_name is None:
        raise InputError(f'--model_name is missing: the net of the source; valid: {", ".join(nets_factory.NETS)}')
    spec = describe(config.net, model_name, source)
    narrower = f' of depth_multiplier {spec.depth_multiplier:g}' if spec.depth_multiplier != 1 else ''
    net = f'{spec.model_name}{narrower} for images of {spec.image_size} px'
    pair(source.layers, sketch_layers(spec.make_model), source.path, net)  # before the net takes memory
    model = spec.make_model()
    pairs = pair(source.layers, net_layers(model), source.path, net)
    tensors, numbers = fill(pairs)
    lines = source.report(pairs, f'{tensors} tensors, {numbers} parameters', model, spec)
    lines.append(folder.write(path, model, spec, options.overwrite))
    print(
        f'imported {options.source} to {path}: {spec.model_name}, {spec.num_classes} classes, {spec.image_size} px, '
        f'depth_multiplier {spec.depth_multiplier:g}, {spec.preprocessing_name} preprocessing'
    )
    for line in lines:
        print(line)
    return path


def _check_names(model_name: str | None, preprocessing_name: str | None) -> None:
    """Raises InputError for unknown names, before any file is read."""
    if model_name is not None:
        nets_factory.get_net(model_name)
    if preprocessing_name is not None:
        keeps_grayscale(preprocessing_name)
