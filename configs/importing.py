"""The options of `import_weights.py`: source file, net and classes.

make_config(ImportConfig, source='bvlcalexnet-12.onnx', model_name='bvlc_alexnet', train_dir='/tmp/caffe')
"""

import dataclasses

from configs.options import Options, option

_FROM_SOURCE = 'Default: as the source says'


@dataclasses.dataclass(frozen=True)
class ImportOptions(Options):
    """What is imported, and where to."""

    source: str | None = option(
        None, 'An .onnx file, or PyTorch weights as a .safetensors file; in floats of 16 or 32 bits.', path=True
    )
    model_name: str | None = option(
        None,
        'Net that the weights are of; a file of another net is refused. Default: as an export of this project says.',
    )
    train_dir: str | None = option(None, 'Folder that is made: a checkpoint of step 0 and model.json.', path=True)
    overwrite: bool = option(False, 'Replace what an earlier import has written there; never a run.')


@dataclasses.dataclass(frozen=True)
class ImportNetOptions(Options):
    """What the source does not say, or may leave open. Width, channels and number of classes are found in it."""

    image_size: int | None = option(
        None, f"Side of the images in pixels. {_FROM_SOURCE}, else the net's own.", lower=1, upper=2**13
    )
    preprocessing_name: str | None = option(None, "Preprocessing. Default: the net's own.")
    dataset_name: str | None = option(
        None, 'Data set that the weights were trained on, which evaluation then takes. Default: none is known.'
    )
    dataset_dir: str | None = option(
        None, 'Folder of that data set, of which its names of classes are taken too.', path=True
    )
    labels_offset: int | None = option(
        None,
        'What is subtracted from the labels of the data set. Default: 1 if it has one class more than the source, as '
        "slim's imagenet has with its background; else 0.",
        lower=0,
    )
    labels_path: str | None = option(
        None,
        'File with the names of the classes: one a line, id:name, or a list or dict of Python or JSON.',
        path=True,
    )


@dataclasses.dataclass(frozen=True)
class ImportConfig:
    """All that `importing.importing.import_weights` depends on."""

    source: ImportOptions = ImportOptions()
    net: ImportNetOptions = ImportNetOptions()
