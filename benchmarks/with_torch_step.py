"""Training steps in PyTorch, eager or compiled, on one batch of noise; and its matrix product.

    build/peers/bin/python benchmarks/with_torch_step.py eager --options='{"batch_size": 32, "dtype": "float32"}'
    build/peers/bin/python benchmarks/with_torch_step.py product --options='{"side": 4096, "dtype": "bfloat16"}'

Channels last, autocast where it is not float32, the loss read after every step. `imports` does no more than that.
"""

from collections.abc import Callable
from typing import Any

import torch
from contestant import parse_options, serve
from torch.nn import functional
from torch_alexnet import CLASSES, make_net


def eager(options: dict[str, Any]) -> Callable[[], object]:
    """Returns a function that makes a training step."""
    return _steps(options, compiled=False)


def compiled(options: dict[str, Any]) -> Callable[[], object]:
    """Returns the same, with the net compiled, and the update too, which eager makes in a pass for each operation."""
    return _steps(options, compiled=True)


def product(options: dict[str, Any]) -> Callable[[], object]:
    """Returns a function that multiplies two square matrices."""
    side, dtype = options['side'], getattr(torch, options['dtype'])
    left, right = (torch.randn(side, side).to(dtype) for _ in range(2))
    return lambda: (left @ right)[0, 0].item()


def imports(options: dict[str, Any]) -> Callable[[], object]:
    """Returns a function that does nothing."""
    del options
    return lambda: None


def _steps(options: dict[str, Any], compiled: bool) -> Callable[[], object]:
    torch.manual_seed(0)
    batch_size, size = options['batch_size'], options.get('image_size', 224)
    net = make_net(options.get('model_name', 'alexnet_v2'), options.get('depth_multiplier', 1.0))
    net = net.to(memory_format=torch.channels_last)
    optimizer = torch.optim.RMSprop(net.parameters(), lr=1e-3, alpha=0.9, eps=1.0, momentum=0.9, weight_decay=4e-5)
    images = torch.randn(batch_size, 3, size, size).to(memory_format=torch.channels_last)
    labels = torch.randint(0, CLASSES, (batch_size,))
    forward, update = (torch.compile(net), torch.compile(optimizer.step)) if compiled else (net, optimizer.step)
    is_mixed = options['dtype'] != 'float32'

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast('cpu', dtype=torch.bfloat16, enabled=is_mixed):
            loss = functional.cross_entropy(forward(images).float(), labels)
        loss.backward()
        update()
        return loss.item()

    return step


WORKS: dict[str, Callable[[dict[str, Any]], Callable[[], object]]] = {
    work.__name__: work for work in (eager, compiled, product, imports)
}

if __name__ == '__main__':
    flags = parse_options(__doc__, WORKS)
    serve(flags.answers, WORKS[flags.work](flags.options))
