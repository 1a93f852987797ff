"""Test-time augmentation: the crops and scales over which an evaluation averages.

views = Views(crops=10, scales=(0.9, 1.0, 1.1))
preprocessing = dataclasses.replace(preprocessing, views=views)
preprocessing.host_views(image)                        # [views.num_crops, height, width, channels]
"""

import dataclasses

# A crop's place (down, right): 0 is the top or left edge of the image, 1 its middle, 2 the bottom or right edge.
Place = tuple[int, int]
CENTRE: Place = (1, 1)
_CORNERS: tuple[Place, ...] = ((0, 0), (0, 2), (2, 0), (2, 2))


@dataclasses.dataclass(frozen=True)
class Views:
    """The views of each image: the protocol of AlexNet (Krizhevsky et al. 2012), at any number of scales.

    Attributes:
        crops: 1: the centre; 5: also the four corners; 10: also the mirror images of these.
        scales: Factors on the size to which the preprocessing resizes the image before it crops.
    """

    crops: int = 1
    scales: tuple[float, ...] = (1.0,)

    @property
    def places(self) -> tuple[Place, ...]:
        """The places of the crops at each scale, the centre first."""
        return (CENTRE,) if self.crops == 1 else (CENTRE, *_CORNERS)

    @property
    def num_crops(self) -> int:
        """The number of crops of an image at all scales, without mirror images."""
        return len(self.places) * len(self.scales)

    @property
    def are_mirrored(self) -> bool:
        """Whether the mirror image of each crop is a view, too."""
        return self.crops == 10
