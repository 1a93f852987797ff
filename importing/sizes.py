"""How wide a net is, from the widths of its layers: its `depth_multiplier`, as a number that one would type.

find_depth_multiplier('alexnet_v2', [16, 48, 96, 96, 64, 1024, 1024])       # 0.25
"""

import dataclasses
from collections.abc import Sequence

from importing.layers import NetLayer, SourceLayer, sketch_layers
from nets import nets_factory

_HALVES, _DIGITS = 6, 8  # 1/32 is as narrow as anyone goes
_HIGHEST = 16.0  # as of the flag


@dataclasses.dataclass(frozen=True)
class Sizes:
    """The sizes of a net found in a source.

    Attributes:
        image_size: Side of the images in pixels.
        channels: Of the images.
        num_classes: Number of logits.
        depth_multiplier: Width of the net.
    """

    image_size: int
    channels: int
    num_classes: int
    depth_multiplier: float


def widths(layers: Sequence[SourceLayer] | Sequence[NetLayer]) -> list[int]:
    """Returns the filters or units of each layer that has a kernel, the last one too."""
    shapes = [layer.shapes if isinstance(layer, SourceLayer) else layer.shapes[0] for layer in layers]
    return [each['kernel'][0] for each in shapes if 'kernel' in each]


def find_depth_multiplier(model_name: str, found: Sequence[int]) -> float:
    """Returns the multiplier with which a net has these widths; if there is none, most of them; else 1.

    Args:
        model_name: Key of `nets_factory.NETS`.
        found: Width of each layer with a kernel but the last, which the multiplier does not change.
    """
    base = widths(sketch_layers(lambda: nets_factory.make_model(model_name, 2)))[:-1]
    pairs = list(zip(found, base, strict=False))
    # Layers are rounded to whole filters, in nets of two groups to whole filters of each.
    agreeing = max((_agreeing(pairs, slack) for slack in (0.5, 1.0)), key=len)
    if 2 * len(agreeing) < len(pairs) or not agreeing:  # another net, best compared with this one as it is known
        return 1.0
    low, high = max(lower for lower, _ in agreeing), min(upper for _, upper in agreeing)
    middle = (low + high) / 2
    halves = (round(middle * 2**power) / 2**power for power in range(_HALVES))
    decimals = (round(middle, digits) for digits in range(_DIGITS))
    chosen = next((value for value in (*halves, *decimals) if low < value < high), middle)
    return chosen if 0 < chosen <= _HIGHEST else 1.0


def _agreeing(pairs: Sequence[tuple[int, int]], slack: float) -> list[tuple[float, float]]:
    """Returns between which multipliers a layer has its width, for the most layers of which that is one multiplier."""
    intervals = [((width - slack) / full, (width + slack) / full) for width, full in pairs]
    starts = [lower for lower, _ in intervals]  # where most of them overlap, one of them begins
    sets = ([(lower, upper) for lower, upper in intervals if lower <= start < upper] for start in starts)
    return max(sets, key=len, default=[])
