"""A PyTorch DataLoader on the photographs, with torchvision's usual transforms done by Pillow.

    build/peers/bin/python benchmarks/with_torch.py pillow --options='{"dataset_dir": "photographs", "batch_size": 32}'

The transforms are RandomResizedCrop, RandomHorizontalFlip and PILToTensor, written out here because torchvision does
not load beside every build of PyTorch.
"""

import glob
import math
import os
import random
from collections.abc import Iterator

import numpy as np
import torch
from contestant import parse_options, serve
from PIL import Image
from torch.utils.data import DataLoader, Dataset

SIZE = 224
AREA, ASPECT_RATIO = (0.1, 1.0), (0.75, 1.33)
ATTEMPTS = 10


class Photographs(Dataset):
    """The images of a folder, by their number: uint8 [3, 224, 224] and the label."""

    def __init__(self, folder: str):
        self._paths = sorted(glob.glob(os.path.join(folder, 'train', '*', '*')))
        classes = sorted({os.path.dirname(path) for path in self._paths})
        self._labels = [classes.index(os.path.dirname(path)) for path in self._paths]

    def __len__(self) -> int:
        return len(self._paths)

    def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
        with Image.open(self._paths[number]) as file:
            image = file.convert('RGB')
        image = image.crop(sample_box(*image.size)).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        if random.random() < 0.5:
            image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        return torch.from_numpy(np.array(image)).permute(2, 0, 1), self._labels[number]


def sample_box(width: int, height: int) -> tuple[int, int, int, int]:
    """Samples a window (left, top, right, bottom) as RandomResizedCrop does; the whole image if none fits."""
    for _ in range(ATTEMPTS):
        area = width * height * random.uniform(*AREA)
        ratio = math.exp(random.uniform(*map(math.log, ASPECT_RATIO)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            left, top = random.randint(0, width - w), random.randint(0, height - h)
            return left, top, left + w, top + h
    return 0, 0, width, height


def batches(dataset_dir: str, batch_size: int) -> Iterator:
    """Yields uint8 [batch, 3, 224, 224] and labels without end."""
    loader = DataLoader(
        Photographs(dataset_dir),
        batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=len(os.sched_getaffinity(0)),
        persistent_workers=True,
    )
    while True:
        yield from loader


if __name__ == '__main__':
    flags = parse_options(__doc__, ['pillow'])
    iterator = batches(**flags.options)
    serve(flags.answers, lambda: next(iterator))
