"""The options of `download_and_convert_data.py`: source, records and processes.

    make_config(ConvertConfig, dataset_name='imagenet', source_dir='/data/ilsvrc', dataset_dir='/data/records')

Flags that slim's converters had keep their names (research/slim/datasets/build_imagenet_data.py).
"""

import dataclasses

from configs.options import Options, option


@dataclasses.dataclass(frozen=True)
class SourceOptions(Options):
    """Source images, labels and annotations."""

    dataset_name: str | None = option(
        None, 'Data set to convert: imagenet, image_folder, cifar10, mnist, flowers or tfds:<name>.'
    )
    source_dir: str | None = option(
        None,
        'Folder of the raw images or archives. If it is not given, cifar10, mnist and flowers are downloaded. For '
        "tfds:<name>: folder of TFDS's data. Default: TFDS's own.",
        path=True,
    )
    validation_labels_file: str | None = option(
        None,
        'imagenet: file with the WordNet id of each validation image, one per line, in the order of the image names.',
        path=True,
    )
    class_names_file: str | None = option(
        None,
        'imagenet: file with class names, `wnid name` or `wnid<TAB>name`, one per line. Default: the WordNet ids.',
        path=True,
    )
    bounding_box_dir: str | None = option(
        None, 'imagenet: folder of the XML annotation files with bounding boxes.', path=True
    )


@dataclasses.dataclass(frozen=True)
class RecordOptions(Options):
    """TFRecords to write."""

    dataset_dir: str | None = option(None, 'Output folder for the TFRecords, labels.txt and dataset.json.', path=True)
    train_shards: int | None = option(
        None,
        'Number of files of the train split. Default: as in slim (imagenet: 1024) if there are at least that many '
        'images, otherwise one per 128 MiB.',
        lower=1,
        upper=99_999,
    )
    validation_shards: int | None = option(
        None,
        'Number of files of every other split. Default: as in slim (imagenet: 128) if there are at least that many '
        'images, otherwise one per 128 MiB.',
        lower=1,
        upper=99_999,
    )
    resize_shorter_side: int | None = option(
        None,
        'Shrink images until their shorter side has this many pixels; smaller images stay unchanged.',
        lower=8,
        upper=2**13,
    )
    jpeg_quality: int = option(90, 'JPEG quality of shrunken images.', lower=1, upper=100)


@dataclasses.dataclass(frozen=True)
class WorkOptions(Options):
    """Processing and checks."""

    num_processes: int | None = option(
        None, 'Processes that read, check and write. Default: one per core.', lower=1, upper=1024
    )
    max_bad_images: int = option(
        0, 'Maximum number of unreadable images to leave out and list; one more stops the conversion.', lower=0
    )
    unpack: bool = option(
        False,
        'Instead of converting, decompress the TFRecords in --source_dir (GZIP or ZLIB) into --dataset_dir. Training '
        'and evaluation read only uncompressed ones.',
    )
    verify: bool = option(False, 'Instead of converting, read all of --dataset_dir and compare it with dataset.json.')


@dataclasses.dataclass(frozen=True)
class ConvertConfig:
    """All that a conversion depends on."""

    source: SourceOptions = SourceOptions()
    records: RecordOptions = RecordOptions()
    work: WorkOptions = WorkOptions()
