"""Evaluation and prediction in PyTorch: Pillow decodes, DataLoader workers prepare, the net runs in inference mode.

    python benchmarks/with_torch_inference.py evaluation --options='{"folder": "images", "batch_size": 100}'
    python benchmarks/with_torch_inference.py prediction --options='{"weights_path": "alexnet_v2.pt"}'

Images are prepared as torchvision does it for evaluation: the shorter side to 256 pixels, bilinear, then the central
224 of each side.
"""

import os
from collections.abc import Callable
from typing import Any

import torch
from contestant import parse_options, serve_turns
from torch_alexnet import make_net

SIZE, SHORTER_SIDE, TOP = 224, 256, 5
CLASSES = 1001  # those of slim's TFRecords


def evaluation(options: dict[str, Any]) -> Callable[[int], dict[str, float]]:
    """Returns a function that evaluates repeatedly, from image files to Recall@5; `folder` has one folder a label."""
    import numpy as np
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset

    class Photographs(Dataset):
        def __init__(self, folder: str):
            self._files = [
                (os.path.join(folder, label, name), int(label))
                for label in sorted(os.listdir(folder))
                for name in sorted(os.listdir(os.path.join(folder, label)))
            ]

        def __len__(self) -> int:
            return len(self._files)

        def __getitem__(self, number: int) -> tuple[torch.Tensor, int]:
            path, label = self._files[number]
            with Image.open(path) as file:
                image = file.convert('RGB')
            scale = SHORTER_SIDE / min(image.size)
            width, height = (round(side * scale) for side in image.size)
            left, top = (width - SIZE) // 2, (height - SIZE) // 2
            image = image.resize((width, height), Image.Resampling.BILINEAR)
            pixels = np.array(image.crop((left, top, left + SIZE, top + SIZE)))
            return torch.from_numpy(pixels).permute(2, 0, 1), label

    # Workers are forked before PyTorch's own threads run: those of the parent would not come along.
    workers = len(os.sched_getaffinity(0))
    loader = DataLoader(
        Photographs(options['folder']), options['batch_size'], num_workers=workers, persistent_workers=True
    )
    net = make_net(classes=CLASSES).to(memory_format=torch.channels_last).eval()

    @torch.inference_mode()
    def turn(count: int) -> dict[str, float]:
        hits = seen = 0
        for _ in range(count):
            for pixels, labels in loader:
                images = (pixels.to(torch.float32, memory_format=torch.channels_last) - 127.5) / 127.5
                best = net(images).topk(TOP).indices
                hits, seen = hits + int((best == labels[:, None]).sum()), seen + len(labels)
        return {'recall_at_5': hits / seen, 'images': seen}

    return turn


def prediction(options: dict[str, Any]) -> Callable[[int], None]:
    """Returns a function that classifies one prepared image repeatedly, with the weights of a file, made if missing."""
    path = options['weights_path']
    if not os.path.exists(path):
        torch.save(make_net().state_dict(), path)
    with torch.device('meta'):
        net = make_net()
    net.load_state_dict(torch.load(path, mmap=True), assign=True)
    net = net.to(memory_format=torch.channels_last).eval()
    image = torch.randn(1, 3, SIZE, SIZE).to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def turn(count: int) -> None:
        for _ in range(count):
            net(image).numpy()

    return turn


WORKS: dict[str, Callable[[dict[str, Any]], Callable[[int], Any]]] = {
    work.__name__: work for work in (evaluation, prediction)
}

if __name__ == '__main__':
    flags = parse_options(__doc__, WORKS)
    serve_turns(flags.answers, WORKS[flags.work](flags.options))
