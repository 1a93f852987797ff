"""The same nets in PyTorch, as one would write them there: `Linear` layers behind the convolutions.

net = make_net('alexnet_v2', depth_multiplier=0.25).to(memory_format=torch.channels_last)
"""

from torch import nn

CLASSES = 1000
POSITIONS = {'alexnet_v2': 5, 'torchvision_alexnet': 6}  # along a side, before fc6


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
    return nn.Sequential(*convolutions, *head, nn.Linear(hidden, classes))
