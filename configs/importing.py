"""The options of `import_weights.py`: source file, net and classes.

make_config(ImportConfig, source='bvlcalexnet-12.onnx', model_name='bvlc_alexnet', train_dir='/tmp/caffe')
"""

import dataclasses

from configs.options import Options, option

_FROM_SOURCE = 'Default: from the source'


@dataclasses.dataclass(frozen=True)
class ImportOptions(Options):
    """Source and output."""

    source: str | None = option(
        None,
        'File to import: an .onnx file, or PyTorch weights in a .safetensors file; 16-bit or 32-bit floats.',
        path=True,
    )
    model_name: str | None = option(
        None,
        'Net of the weights; a file of another net is refused. Default: the net recorded in the file, if it is an '
        'export of this project.',
    )
    train_dir: str | None = option(None, 'Folder to create, with a checkpoint of step 0 and model.json.', path=True)
    overwrite: bool = option(
        False, 'Replace the files of an earlier import in --train_dir; a training run is never replaced.'
    )


@dataclasses.dataclass(frozen=True)
class ImportNetOptions(Options):
    """Properties that the source may not record. Width, channels and number of classes are read from it."""

    image_size: int | None = option(
        None, f"Side of the images in pixels. {_FROM_SOURCE}, otherwise the net's own.", lower=1, upper=2**13
    )
    preprocessing_name: str | None = option(None, "Preprocessing. Default: the net's own.")
    dataset_name: str | None = option(
        None, 'Data set that the weights were trained on, used as the default for evaluation. Default: none.'
    )
    dataset_dir: str | None = option(None, 'Folder of that data set; its class names are used too.', path=True)
    labels_offset: int | None = option(
        None,
        'Number subtracted from the labels of the data set. Default: 1 if the data set has one class more than the '
        "source (slim's imagenet has a background class), otherwise 0.",
        lower=0,
    )
    labels_path: str | None = option(
        None,
        'File with class names: one per line, id:name, or a Python or JSON list or dict.',
        path=True,
    )


@dataclasses.dataclass(frozen=True)
class ImportConfig:
    """All that `importing.importing.import_weights` depends on."""

    source: ImportOptions = ImportOptions()
    net: ImportNetOptions = ImportNetOptions()
