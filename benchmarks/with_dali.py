"""NVIDIA DALI's CPU pipeline on the photographs: read, crop and decode, resize.

    build/peers/bin/python benchmarks/with_dali.py same_work --options='{"dataset_dir": "originals", "batch_size": 32}'

same_work resizes as this project does, each pixel from its four neighbours; antialiased is DALI's default for linear
interpolation; recipe is the triangular filter of DALI's ImageNet training examples.
"""

import functools
import glob
import os
import struct
import tempfile

from contestant import Turn, repeated, serve
from nvidia.dali import fn, pipeline_def, tfrecord, types

SIZE = 224
RESIZES = {
    'same_work': {'interp_type': types.INTERP_LINEAR, 'antialias': False},
    'antialiased': {'interp_type': types.INTERP_LINEAR},
    'recipe': {'interp_type': types.INTERP_TRIANGULAR},
}


def write_index(record_file: str, index_file: str) -> None:
    """Writes offset and size of each record of a TFRecord file, as DALI requires."""
    with open(record_file, 'rb') as records, open(index_file, 'w') as index:
        while header := records.read(8):
            offset, size = records.tell() - 8, struct.unpack('<Q', header)[0] + 16
            print(offset, size, file=index)
            records.seek(offset + size)


def make_pipeline(work: str, index_dir: str, dataset_dir: str, batch_size: int) -> Turn:
    """Returns the turn function of a pipeline: image uint8 [224, 224, 3], label."""
    files = sorted(glob.glob(os.path.join(dataset_dir, 'train-*')))
    indices = [os.path.join(index_dir, os.path.basename(path)) for path in files]
    for path, index in zip(files, indices, strict=True):
        write_index(path, index)

    @pipeline_def(batch_size=batch_size, num_threads=len(os.sched_getaffinity(0)), device_id=None)
    def pipeline():
        example = fn.readers.tfrecord(
            path=files,
            index_path=indices,
            random_shuffle=True,
            initial_fill=4 * batch_size,
            features={
                'image/encoded': tfrecord.FixedLenFeature((), tfrecord.string, ''),
                'image/class/label': tfrecord.FixedLenFeature([1], tfrecord.int64, -1),
            },
        )
        image = fn.decoders.image_random_crop(
            example['image/encoded'],
            output_type=types.RGB,
            random_aspect_ratio=[0.75, 1.33],
            random_area=[0.1, 1.0],  # as in this project, whose windows cover at least a tenth of the image
            num_attempts=100,
        )
        return fn.resize(image, size=[SIZE, SIZE], **RESIZES[work]), example['image/class/label']

    built = pipeline()
    built.build()
    return repeated(built.run)


if __name__ == '__main__':
    with tempfile.TemporaryDirectory() as folder:
        serve(__doc__, {work: functools.partial(make_pipeline, work, folder) for work in RESIZES})
