"""TensorFlow input pipelines as contestants: this project's, its parts alone, slim's graph, TFDS.

    PYTHONPATH=. python benchmarks/with_tensorflow.py host --options='{"dataset_dir": "originals", "batch_size": 32}'

All give batches of training images at 224 pixels, as uint8 [batch, 224, 224, 3] unless it says otherwise.
"""

import functools
import glob
import os
from collections.abc import Callable, Iterator

import tensorflow as tf
from contestant import Turn, repeated, serve

from datasets.dataset_factory import get_dataset
from datasets.input_pipeline import training_batches
from preprocessing.preprocessing_factory import get_preprocessing

SIZE = 224
WHOLE_IMAGE = (((0.0, 0.0, 1.0, 1.0),),)


def host(dataset_dir: str, batch_size: int) -> Iterator:
    """Runs this project's host stage: read, crop and decode, resize."""
    return iter(_host_batches(dataset_dir, batch_size))


def whole(dataset_dir: str, batch_size: int) -> Iterator:
    """Runs this project's host stage, then its device stage compiled for the CPU: float32 in [-1, 1]."""
    preprocessing = get_preprocessing('inception', SIZE)
    device_train = tf.function(preprocessing.device_train, jit_compile=True)

    @tf.function
    def finish(images: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
        return device_train(images, preprocessing.make_draws(tf.stack([tf.constant(0, tf.int64), number]), batch_size))

    for number, batch in enumerate(_host_batches(dataset_dir, batch_size)):
        yield finish(batch['image'], tf.constant(number, tf.int64))


def slims_graph(dataset_dir: str, batch_size: int) -> Iterator:
    """Runs slim's inception preprocessing, one image at a time and decoded whole: float32 in [-1, 1]."""

    def prepare(encoded: tf.Tensor) -> tf.Tensor:
        image = _crop_and_resize(tf.image.convert_image_dtype(tf.image.decode_jpeg(encoded, channels=3), tf.float32))
        image = tf.image.random_flip_left_right(image)
        image = tf.image.random_saturation(tf.image.random_brightness(image, 32 / 255), 0.5, 1.5)
        return (tf.clip_by_value(image, 0.0, 1.0) - 0.5) * 2.0

    return iter(_batches(_encoded(dataset_dir).map(prepare, num_parallel_calls=tf.data.AUTOTUNE), batch_size))


def entropy(dataset_dir: str, batch_size: int) -> Iterator:
    """Runs only entropy decoding: at an eighth of the size, only a mean is left of the inverse DCT."""
    decoded = _encoded(dataset_dir).map(_entropy_decode, num_parallel_calls=tf.data.AUTOTUNE)
    return iter(_batches(decoded, batch_size))


def entropy_in_memory(dataset_dir: str, batch_size: int) -> Iterator:
    """Runs only entropy decoding, of photographs already in memory."""
    encoded = tf.data.Dataset.from_tensor_slices(list(_encoded(dataset_dir, repeat=False).as_numpy_iterator()))
    decoded = encoded.repeat().map(_entropy_decode, num_parallel_calls=tf.data.AUTOTUNE)
    return iter(_batches(decoded, batch_size))


def tfds_usual(dataset_dir: str, batch_size: int) -> Iterator:
    """Reads TFDS in the usual way: TFDS decodes whole images, the user crops and resizes."""
    examples = _tfds_images(dataset_dir, skip_decoding=False)
    prepared = examples.map(lambda image: _to_uint8(_crop_and_resize(image)), num_parallel_calls=tf.data.AUTOTUNE)
    return iter(_batches(prepared, batch_size))


def tfds_skip_decoding(dataset_dir: str, batch_size: int) -> Iterator:
    """Reads TFDS with `SkipDecoding`: only the crop is decoded."""
    examples = _tfds_images(dataset_dir, skip_decoding=True)

    def prepare(encoded: tf.Tensor) -> tf.Tensor:
        begin, size = _sample_window(tf.io.extract_jpeg_shape(encoded))
        window = tf.concat([begin[:2], size[:2]], axis=0)
        return _to_uint8(_resize(tf.image.decode_and_crop_jpeg(encoded, window, channels=3)))

    return iter(_batches(examples.map(prepare, num_parallel_calls=tf.data.AUTOTUNE), batch_size))


def _host_batches(dataset_dir: str, batch_size: int) -> tf.data.Dataset:
    dataset = get_dataset('image_folder', dataset_dir, 'train')
    return training_batches(dataset, get_preprocessing('inception', SIZE), batch_size, seed=0, first_position=0)


def _encoded(dataset_dir: str, repeat: bool = True) -> tf.data.Dataset:
    """Returns the encoded images in the order of the records, the fastest way to read them."""
    features = {'image/encoded': tf.io.FixedLenFeature([], tf.string)}
    records = tf.data.TFRecordDataset(sorted(glob.glob(os.path.join(dataset_dir, 'train-*'))))
    records = records.repeat() if repeat else records
    return records.map(
        lambda record: tf.io.parse_single_example(record, features)['image/encoded'],
        num_parallel_calls=tf.data.AUTOTUNE,
    )


def _tfds_images(photographs: str, skip_decoding: bool) -> tf.data.Dataset:
    import tensorflow_datasets as tfds  # slow to import, and not needed by the others

    decoders = {'image': tfds.decode.SkipDecoding()} if skip_decoding else None
    builder = tfds.folder_dataset.ImageFolder(photographs)
    examples = builder.as_dataset(split='train', shuffle_files=True, decoders=decoders)
    return examples.repeat().map(lambda example: example['image'])


def _entropy_decode(encoded: tf.Tensor) -> tf.Tensor:
    return tf.shape(tf.image.decode_jpeg(encoded, channels=3, ratio=8))


def _sample_window(shape: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Samples a window as slim does; returns begin and size."""
    begin, size, _ = tf.image.sample_distorted_bounding_box(
        shape,
        tf.constant(WHOLE_IMAGE),
        min_object_covered=0.1,
        aspect_ratio_range=(0.75, 1.33),
        area_range=(0.05, 1.0),
        max_attempts=100,
        use_image_if_no_bounding_boxes=True,
    )
    return begin, size


def _crop_and_resize(image: tf.Tensor) -> tf.Tensor:
    return _resize(tf.slice(image, *_sample_window(tf.shape(image))))


def _resize(image: tf.Tensor) -> tf.Tensor:
    resized = tf.raw_ops.ResizeBilinear(images=tf.cast(image, tf.float32)[tf.newaxis], size=(SIZE, SIZE))
    return tf.ensure_shape(resized[0], [SIZE, SIZE, 3])


def _to_uint8(image: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.round(image), tf.uint8)


def _batches(examples: tf.data.Dataset, batch_size: int) -> tf.data.Dataset:
    return examples.batch(batch_size, drop_remainder=True).prefetch(2)


def main() -> None:
    """Runs the pipeline that the command line names."""
    pipelines = (host, whole, slims_graph, entropy, entropy_in_memory, tfds_usual, tfds_skip_decoding)
    serve(__doc__, {pipeline.__name__: functools.partial(_take, pipeline) for pipeline in pipelines})


def _take(pipeline: Callable[[str, int], Iterator], dataset_dir: str, batch_size: int) -> Turn:
    batches = pipeline(dataset_dir, batch_size)
    return repeated(lambda: next(batches))


if __name__ == '__main__':
    main()
