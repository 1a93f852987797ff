"""The options of `download_and_convert_data.py`: source, records and processes.

    make_config(ConvertConfig, dataset_name='imagenet', source_dir='/data/ilsvrc', dataset_dir='/data/records')

Flags that slim's converters had keep their names (research/slim/datasets/build_imagenet_data.py).
"""

import dataclasses

from configs.options import Options, option


@dataclasses.dataclass(frozen=True)
class SourceOptions(Options):
    """Which images are converted, and what is known of them beside their bytes."""

    dataset_name: str | None = option(
        None, 'What is converted: imagenet, image_folder, cifar10, mnist, flowers or tfds:<name>.'
    )
    source_dir: str | None = option(
        None,
        'Folder of the raw images or archives. cifar10, mnist and flowers are downloaded without it; for tfds:<name> '
        "it is the folder of its data, by default TFDS's own.",
        path=True,
    )
    validation_labels_file: str | None = option(
        None, 'imagenet: the WordNet id of each validation image, a line each, in the order of their names.', path=True
    )
    class_names_file: str | None = option(
        None,
        'imagenet: names of the classes, `wnid name` or `wnid<TAB>name` a line. Default: the WordNet ids.',
        path=True,
    )
    bounding_box_dir: str | None = option(
        None, 'imagenet: folder of the annotation XML files with bounding boxes.', path=True
    )


@dataclasses.dataclass(frozen=True)
class RecordOptions(Options):
    """What is written."""

    dataset_dir: str | None = option(None, 'Folder for the TFRecords, labels.txt and dataset.json.', path=True)
    train_shards: int | None = option(
        None,
        'Files of the split train. Default: as many as slim writes (imagenet: 1024) if there are at least as many '
        'images, else one for each 128 MiB.',
        lower=1,
        upper=99_999,
    )
    validation_shards: int | None = option(
        None,
        'Files of every other split. Default: as many as slim writes (imagenet: 128) if there are at least as many '
        'images, else one for each 128 MiB.',
        lower=1,
        upper=99_999,
    )
    resize_shorter_side: int | None = option(
        None,
        'Make images smaller until their shorter side has so many pixels; smaller ones stay.',
        lower=8,
        upper=2**13,
    )
    jpeg_quality: int = option(90, 'JPEG quality of the images that were made smaller.', lower=1, upper=100)


@dataclasses.dataclass(frozen=True)
class WorkOptions(Options):
    """How the work is done; none of it changes what is written."""

    num_processes: int | None = option(
        None, 'Processes that read, check and write. Default: one for each core.', lower=1, upper=1024
    )
    max_bad_images: int = option(
        0, 'Leave out up to so many unreadable images, and list them; one more stops the conversion.', lower=0
    )
    unpack: bool = option(
        False,
        'Convert nothing, but decompress the TFRecords in --source_dir (GZIP or ZLIB) into --dataset_dir: training and '
        'evaluation read uncompressed ones only.',
    )
    verify: bool = option(False, 'Convert nothing, but read all of --dataset_dir again and compare with dataset.json.')


@dataclasses.dataclass(frozen=True)
class ConvertConfig:
    """All that a conversion depends on."""

    source: SourceOptions = SourceOptions()
    records: RecordOptions = RecordOptions()
    work: WorkOptions = WorkOptions()
