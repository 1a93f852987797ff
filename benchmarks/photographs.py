"""Input files of the benchmarks: 500x375 photographs, repeated to make epochs long enough to time.

files = prepare('../shared/data/imagenet_mini', 'build/bench')
files['photographs']      # a folder of JPEGs for each class, under train/
files['originals']        # the same bytes as TFRecords
files['smaller']          # TFRecords of the photographs at 256 pixels on the shorter side
"""

import glob
import os
import re
import shutil
import subprocess
import sys

from rounds import ROOT

SIDES = (375, 500)
NUM_IMAGES = 1024
SHARDS = 4


def prepare(dataset_dir: str, folder: str) -> dict[str, str]:
    """Makes all files anew under `folder`; returns where they are."""
    places = {name: os.path.join(folder, name) for name in ('photographs', 'originals', 'smaller')}
    for place in places.values():
        shutil.rmtree(place, ignore_errors=True)
    write_photographs(dataset_dir, places['photographs'])
    convert('image_folder', places['photographs'], places['originals'], f'--train_shards={SHARDS}')
    convert(
        'image_folder',
        places['photographs'],
        places['smaller'],
        f'--train_shards={SHARDS}',
        '--resize_shorter_side=256',
        '--jpeg_quality=90',
    )
    return places


def write_photographs(dataset_dir: str, folder: str) -> None:
    """Writes the training photographs of slim's TFRecords that have the size, again and again, in class folders."""
    import tensorflow as tf

    features = {
        'image/encoded': tf.io.FixedLenFeature([], tf.string),
        'image/class/label': tf.io.FixedLenFeature([], tf.int64),
    }
    records = tf.data.TFRecordDataset(sorted(glob.glob(os.path.join(dataset_dir, 'train-*'))))
    examples = [tf.io.parse_single_example(record, features) for record in records]
    chosen = [
        (example['image/encoded'].numpy(), int(example['image/class/label']))
        for example in examples
        if tuple(sorted(tf.io.extract_jpeg_shape(example['image/encoded']).numpy()[:2])) == SIDES
    ]
    for number in range(NUM_IMAGES):
        encoded, label = chosen[number % len(chosen)]
        class_dir = os.path.join(folder, 'train', f'class_{label:04}')
        os.makedirs(class_dir, exist_ok=True)
        with open(os.path.join(class_dir, f'{number:05}.jpg'), 'wb') as file:
            file.write(encoded)


def write_validation(dataset_dir: str, folder: str, num_images: int) -> tuple[str, str]:
    """Repeats the validation images of slim's TFRecords, as records and as image files in a folder for each label.

    Returns:
        Where the records are, and where the files.
    """
    import tensorflow as tf

    places = tuple(os.path.join(folder, name) for name in ('records', 'images'))
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(places[0])
    features = {
        'image/encoded': tf.io.FixedLenFeature([], tf.string),
        'image/class/label': tf.io.FixedLenFeature([], tf.int64),
    }
    paths = sorted(glob.glob(os.path.join(dataset_dir, 'validation-*')))
    records = list(tf.data.TFRecordDataset(paths).as_numpy_iterator())
    for shard in range(SHARDS):
        name = f'validation-{shard:05}-of-{SHARDS:05}'
        with tf.io.TFRecordWriter(os.path.join(places[0], name)) as writer:
            for number in range(shard, num_images, SHARDS):
                writer.write(records[number % len(records)])
    for number in range(num_images):
        example = tf.io.parse_single_example(records[number % len(records)], features)
        class_dir = os.path.join(places[1], str(int(example['image/class/label'])))
        os.makedirs(class_dir, exist_ok=True)
        with open(os.path.join(class_dir, f'{number:05}.jpg'), 'wb') as file:
            file.write(example['image/encoded'].numpy())
    return places[0], places[1]


def convert(dataset_name: str, source_dir: str, dataset_dir: str, *flags: str) -> float:
    """Runs this project's conversion; returns the seconds that it took once its processes were ready."""
    script = os.path.join(ROOT, 'download_and_convert_data.py')
    names = [f'--dataset_name={dataset_name}', f'--source_dir={source_dir}', f'--dataset_dir={dataset_dir}']
    done = subprocess.run([sys.executable, script, *names, *flags], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f'error: the conversion of {source_dir} failed:\n{done.stderr}')
    (seconds,) = re.findall(r'images converted in ([\d.]+) s', done.stdout + done.stderr)
    return float(seconds)
