"""PyTorch: training steps, evaluation, prediction, a DataLoader of training images, and its matrix product.

    build/peers/bin/python benchmarks/with_torch.py eager --options='{"batch_size": 32, "dtype": "float32"}'
    build/peers/bin/python benchmarks/with_torch.py loader --options='{"dataset_dir": "photographs", "batch_size": 32}'

Nets are as one would write them there, with `Linear` layers behind the convolutions, channels last. Images are decoded
by Pillow in the DataLoader's workers, with torchvision's usual transforms, written out here because torchvision does
not load beside every build of PyTorch. Pillow is imported where it is needed: starts and imports are measured too.
"""

import functools
import glob
import math
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import torch
from contestant import Turn, imports, repeated, serve
from torch import nn
from torch.nn import functional

CLASSES, IMAGENET_CLASSES = 1000, 1001  # the latter include slim's background class
POSITIONS = {'alexnet_v2': 5, 'torchvision_alexnet': 6}  # along a side, before fc6
SIZE, SHORTER_SIDE, TOP = 224, 256, 5
AREA, ASPECT_RATIO, ATTEMPTS = (0.1, 1.0), (0.75, 1.33), 10


def make_net(name: str = 'alexnet_v2', depth_multiplier: float = 1.0, classes: int = CLASSES) -> nn.Sequential:
    """Returns alexnet_v2 for 224 pixels, or torchvision_alexnet for any size; images are [batch, 3, height, width]."""

    def width(filters: int) -> int:
        return max(int(filters * depth_multiplier), 1)

    is_v2, positions = name == 'alexnet_v2', POSITIONS[name]
    filters = [width(each) for each in (64, 192, 384, 384 if is_v2 else 256, 256)]
    hidden = width(4096)
    convolutions = [
        *(nn.Conv2d(3, filters[0], 11, 4, padding=0 if is_v2 else 2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(filters[0], filters[1], 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(filters[1], filters[2], 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(filters[2], filters[3], 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(filters[3], filters[4], 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(() if is_v2 else (nn.AdaptiveAvgPool2d(positions),)),
        nn.Flatten(),
    ]
    fc6, fc7 = nn.Linear(filters[4] * positions**2, hidden), nn.Linear(hidden, hidden)
    head: list[nn.Module] = [fc6, nn.ReLU(), nn.Dropout(), fc7, nn.ReLU()]
    head = [*head, nn.Dropout()] if is_v2 else [nn.Dropout(), *head]
    return nn.Sequential(*convolutions, *head, nn.Linear(hidden, classes)).to(memory_format=torch.channels_last)


def step(
    is_compiled: bool,
    batch_size: int,
    dtype: str,
    image_size: int = SIZE,
    model_name: str = 'alexnet_v2',
    depth_multiplier: float = 1.0,
) -> Turn:
    """Trains on one batch of noise, with autocast unless float32; reads the loss after every step.

    `is_compiled` compiles the net and the update, which eager mode runs in one pass per operation.
    """
    torch.manual_seed(0)
    net = make_net(model_name, depth_multiplier)
    optimizer = torch.optim.RMSprop(net.parameters(), lr=1e-3, alpha=0.9, eps=1.0, momentum=0.9, weight_decay=4e-5)
    images = torch.randn(batch_size, 3, image_size, image_size).to(memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (batch_size,))
    forward, update = (torch.compile(net), torch.compile(optimizer.step)) if is_compiled else (net, optimizer.step)

    def take() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast('cpu', dtype=torch.bfloat16, enabled=dtype != 'float32'):
            loss = functional.cross_entropy(forward(images).float(), labels)
        loss.backward()
        update()
        loss.item()

    return repeated(take)


def product(side: int, dtype: str) -> Turn:
    """Multiplies two square matrices."""
    left, right = (torch.randn(side, side).to(getattr(torch, dtype)) for _ in range(2))
    return repeated(lambda: (left @ right)[0, 0].item())


def evaluation(folder: str, batch_size: int) -> Turn:
    """Evaluates image files to Recall@5; `folder` has one folder per label."""
    files = [(path, int(os.path.basename(os.path.dirname(path)))) for path in sorted(glob.glob(f'{folder}/*/*'))]
    # Workers are forked before PyTorch starts its own threads, which a fork would not copy.
    batches = make_loader(files, crop_centre, batch_size)
    net = make_net(classes=IMAGENET_CLASSES).eval()

    @torch.inference_mode()
    def take() -> float:
        hits = 0
        for pixels, labels in batches:
            images = (pixels.to(torch.float32, memory_format=torch.channels_last) - 127.5) / 127.5
            hits += int((net(images).topk(TOP).indices == labels[:, None]).sum())
        return hits / len(files)

    return repeated(take)


def prediction(weights_path: str) -> Turn:
    """Classifies one prepared image repeatedly, with the weights of a file, which is written if missing."""
    if not os.path.exists(weights_path):
        torch.save(make_net().state_dict(), weights_path)
    with torch.device('meta'):
        net = make_net()
    net.load_state_dict(torch.load(weights_path, mmap=True), assign=True)
    net = net.to(memory_format=torch.channels_last).eval()
    image = torch.randn(1, 3, SIZE, SIZE).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def take() -> None:
        net(image).numpy()

    return repeated(take)


def loader(dataset_dir: str, batch_size: int) -> Turn:
    """Yields endless batches of training images: RandomResizedCrop, RandomHorizontalFlip, PILToTensor."""
    paths = sorted(glob.glob(os.path.join(dataset_dir, 'train', '*', '*')))
    classes = sorted({os.path.dirname(path) for path in paths})
    files = [(path, classes.index(os.path.dirname(path))) for path in paths]
    batches = make_loader(files, crop_at_random, batch_size, shuffle=True, drop_last=True)

    def without_end() -> Iterator[Any]:
        while True:
            yield from batches

    endless = without_end()
    return repeated(lambda: next(endless))


def make_loader(files: list[tuple[str, int]], transform: Callable[[Any], Any], batch_size: int, **options: Any) -> Any:
    """Returns a DataLoader of uint8 [batch, 3, 224, 224] and labels, with a worker per core."""
    import numpy as np
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset

    class Photographs(Dataset):
        def __len__(self) -> int:
            return len(files)

        def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
            path, label = files[number]
            with Image.open(path) as file:
                image = transform(file.convert('RGB'))
            return torch.from_numpy(np.array(image)).permute(2, 0, 1), label

    workers = len(os.sched_getaffinity(0))
    return DataLoader(Photographs(), batch_size, num_workers=workers, persistent_workers=True, **options)


def crop_centre(image: Any) -> Any:
    """Returns the central 224x224 pixels after bilinear resizing to a shorter side of 256."""
    from PIL import Image

    scale = SHORTER_SIDE / min(image.size)
    width, height = (round(side * scale) for side in image.size)
    left, top = (width - SIZE) // 2, (height - SIZE) // 2
    resized = image.resize((width, height), Image.Resampling.BILINEAR)
    return resized.crop((left, top, left + SIZE, top + SIZE))


def crop_at_random(image: Any) -> Any:
    """Returns a random window of an image, resized to 224x224 pixels and mirrored half of the time."""
    from PIL import Image

    cropped = image.crop(sample_box(*image.size)).resize((SIZE, SIZE), Image.Resampling.BILINEAR)
    return cropped.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.5 else cropped


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


if __name__ == '__main__':
    serve(
        __doc__,
        {
            'eager': functools.partial(step, False),
            'compiled': functools.partial(step, True),
            'product': product,
            'evaluation': evaluation,
            'prediction': prediction,
            'loader': loader,
            'imports': imports,
        },
    )
