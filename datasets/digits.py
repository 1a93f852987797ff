"""The embedded data set: scikit-learn's 1,797 handwritten digits of 8x8 pixels.

Alpaydin and Kaynak, Optical Recognition of Handwritten Digits (UCI, 1998). Nothing is downloaded. Every fifth image
is a test image, so the split is always the same: 1,437 training and 360 test images. The files have the format of
slim's MNIST, so every net and preprocessing accepts them:

    write('/tmp/digits')   # digits_train.tfrecord, digits_test.tfrecord, labels.txt
"""

import os

import numpy as np
import tensorflow as tf

from datasets import tfrecord

FILE_PATTERN = 'digits_{split}.tfrecord'
_TEST_EVERY = 5


def write(dataset_dir: str) -> None:
    """Writes both splits and labels.txt to `dataset_dir`, which is created if missing."""
    from sklearn.datasets import load_digits  # it takes a second to import, and few runs need it

    images, labels = load_digits(return_X_y=True)
    pixels = np.rint(images.reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    is_test = np.arange(len(labels)) % _TEST_EVERY == 0
    tf.io.gfile.makedirs(dataset_dir)
    # Written first, because readers that find the records expect it.
    with tf.io.gfile.GFile(os.path.join(dataset_dir, 'labels.txt'), 'w') as file:
        file.write(''.join(f'{digit}:{digit}\n' for digit in range(10)))
    for split, chosen in (('train', ~is_test), ('test', is_test)):
        examples = (
            tfrecord.image_example(tf.io.encode_png(image).numpy(), 'png', 8, 8, int(label))
            for image, label in zip(pixels[chosen], labels[chosen], strict=True)
        )
        tfrecord.write_records(os.path.join(dataset_dir, FILE_PATTERN.format(split=split)), examples)
