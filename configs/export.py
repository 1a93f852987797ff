"""The options of `export_image_classifier.py`: which checkpoint, in which format, where to.

make_config(ExportConfig, checkpoint_path='/tmp/tfmodel', format='keras', output_path='/tmp/alexnet.keras')
"""

import dataclasses

from configs.options import Options, option

_FROM_RUN = 'Default: as the run was trained (model.json)'


@dataclasses.dataclass(frozen=True)
class ExportOptions(Options):
    """What is exported, and as what."""

    checkpoint_path: str = option(
        '/tmp/tfmodel/', 'A checkpoint, a .keras or .weights.h5 file, or a train_dir, whose latest one is exported.'
    )
    format: str = option(
        'slim',
        "slim: a folder with a checkpoint for TF1 slim's eval_image_classifier.py; keras: a .keras file; weights.h5: a "
        '.weights.h5 file.',
    )
    output_path: str | None = option(None, 'The file, or for slim the folder, that is written.')
    overwrite: bool = option(False, 'Replace what an earlier export has written there.')
    moving_average_decay: float | None = option(
        None, 'If given and not 0, export the moving averages as the weights.', lower=0.0, upper=1.0
    )


@dataclasses.dataclass(frozen=True)
class ExportNetOptions(Options):
    """The net, where there is no model.json. The number of classes and of channels is known from the weights."""

    model_name: str | None = option(None, f'Net. {_FROM_RUN}, else alexnet_v2.')
    preprocessing_name: str | None = option(None, f"Preprocessing. {_FROM_RUN}, else the net's own.")
    image_size: int | None = option(
        None, f"Side of the images in pixels. {_FROM_RUN}, else the net's own.", lower=1, upper=2**13
    )
    labels_offset: int | None = option(
        None, f'What was subtracted from the labels and the number of classes. {_FROM_RUN}, else 0.', lower=0
    )
    use_grayscale: bool | None = option(None, f'Whether the net takes one gray channel of images. {_FROM_RUN}.')
    depth_multiplier: float | None = option(None, f'Width of the net. {_FROM_RUN}, else 1.', above=0.0, upper=16.0)
    dataset_name: str | None = option(None, f'Data set of the training, a note for evaluation. {_FROM_RUN}.')


@dataclasses.dataclass(frozen=True)
class ExportConfig:
    """All that `export.exporting.export` depends on."""

    export: ExportOptions = ExportOptions()
    net: ExportNetOptions = ExportNetOptions()
