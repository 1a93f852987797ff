"""How many floating-point operations a training step of alexnet_v2 takes, counted from its layers.

step_gflop(32)      # 137.1

A multiplication and an addition are two. Activations, pooling and the optimizer are passes over memory, and
left out.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Products:
    """A layer: at each of its positions, its inputs times its kernel.

    Attributes:
        name: Of the layer.
        kernel: (height, width, channels, filters).
        side: Positions along a side.
    """

    name: str
    kernel: tuple[int, int, int, int]
    side: int

    @property
    def flop(self) -> int:
        """Of the way forward, for one image; each gradient takes as many."""
        height, width, channels, filters = self.kernel
        return 2 * height * width * channels * filters * self.side**2


ALEXNET_V2 = (  # at 224 pixels, 1000 classes
    Products('conv1', (11, 11, 3, 64), 54),
    Products('conv2', (5, 5, 64, 192), 26),
    Products('conv3', (3, 3, 192, 384), 12),
    Products('conv4', (3, 3, 384, 384), 12),
    Products('conv5', (3, 3, 384, 256), 12),
    Products('fc6', (5, 5, 256, 4096), 1),
    Products('fc7', (1, 1, 4096, 4096), 1),
    Products('fc8', (1, 1, 4096, 1000), 1),
)


def step_gflop(batch_size: int, layers: tuple[Products, ...] = ALEXNET_V2) -> float:
    """Returns the GFLOP of a step: forward, gradients of kernels and inputs; images need no gradient."""
    first = layers[0]
    return batch_size * (3 * sum(layer.flop for layer in layers) - first.flop) / 1e9


def product_gflop(side: int) -> float:
    """Returns the GFLOP of the product of two square matrices."""
    return 2 * side**3 / 1e9
