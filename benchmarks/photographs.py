"""Input files for the benchmarks: 500x375 photographs, repeated to make epochs long enough to time.

files = prepare('../shared/data/imagenet_mini', 'build/bench')
files['photographs']      # a folder of JPEGs per class, under train/
files['originals']        # the same bytes as TFRecords
files['smaller']          # TFRecords of the photographs at 256 pixels on the shorter side
"""

import glob
import os
import shutil

from rounds import run_script

SIDES = (375, 500)
NUM_IMAGES = 1024
SHARDS = 4


def prepare(dataset_dir: str, folder: str) -> dict[str, str]:
    """Writes all files under `folder`, replacing old ones; returns their folders by name."""
    import tensorflow as tf

    places = {name: os.path.join(folder, name) for name in ('photographs', 'originals', 'smaller')}
    for place in places.values():
        shutil.rmtree(place, ignore_errors=True)
    chosen = [
        (encoded, label)
        for encoded, label in map(_parse, _read_records(dataset_dir, 'train'))
        if tuple(sorted(tf.io.extract_jpeg_shape(encoded).numpy()[:2])) == SIDES
    ]
    for number in range(NUM_IMAGES):
        encoded, label = chosen[number % len(chosen)]
        _write_image(os.path.join(places['photographs'], 'train', f'class_{label:04}'), number, encoded)
    shards = f'--train_shards={SHARDS}'
    convert('image_folder', places['photographs'], places['originals'], shards)
    resized = ('--resize_shorter_side=256', '--jpeg_quality=90')
    convert('image_folder', places['photographs'], places['smaller'], shards, *resized)
    return places


def write_validation(dataset_dir: str, folder: str, num_images: int) -> tuple[str, str]:
    """Writes repeated validation images of slim's TFRecords, as TFRecords and as image files in a folder per label.

    Returns:
        The folder of the records, and the folder of the image files.
    """
    import tensorflow as tf

    of_records, of_images = (os.path.join(folder, name) for name in ('records', 'images'))
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(of_records)
    records = _read_records(dataset_dir, 'validation')
    for shard in range(SHARDS):
        name = f'validation-{shard:05}-of-{SHARDS:05}'
        with tf.io.TFRecordWriter(os.path.join(of_records, name)) as writer:
            for number in range(shard, num_images, SHARDS):
                writer.write(records[number % len(records)])
    for number in range(num_images):
        encoded, label = _parse(records[number % len(records)])
        _write_image(os.path.join(of_images, str(label)), number, encoded)
    return of_records, of_images


def _read_records(dataset_dir: str, split: str) -> list[bytes]:
    import tensorflow as tf

    paths = sorted(glob.glob(os.path.join(dataset_dir, f'{split}-*')))
    return list(tf.data.TFRecordDataset(paths).as_numpy_iterator())


def _parse(record: bytes) -> tuple[bytes, int]:
    """Returns the encoded image and the label of one of slim's records."""
    import tensorflow as tf

    feature = tf.train.Example.FromString(record).features.feature
    return feature['image/encoded'].bytes_list.value[0], feature['image/class/label'].int64_list.value[0]


def _write_image(folder: str, number: int, encoded: bytes) -> None:
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, f'{number:05}.jpg'), 'wb') as file:
        file.write(encoded)


def convert(dataset_name: str, source_dir: str, dataset_dir: str, *flags: str) -> str:
    """Runs this project's conversion; returns its output."""
    folders = {'source_dir': source_dir, 'dataset_dir': dataset_dir}
    names = [f'--{name}={os.path.abspath(folder)}' for name, folder in folders.items()]
    return run_script('download_and_convert_data.py', f'--dataset_name={dataset_name}', *names, *flags)
