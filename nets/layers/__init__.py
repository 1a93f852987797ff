"""Layers of slim that Keras lacks. Importing this package registers them with Keras, so that saved models load."""

from nets.layers.auxiliary import AuxiliaryHead, auxiliary_logits
from nets.layers.basic import AdaptiveAveragePooling2D, L2Regularizer, LocalResponseNormalization, averaging_matrix
from nets.layers.batch_norm import BatchNormalization, batch_statistics, update_moving
from nets.layers.convolutions import (
    Conv2D,
    DepthwiseConv2D,
    FullyConnectedConv2D,
    GroupedConv2D,
    SeparableConv2D,
    fast_convolutions,
)
from nets.layers.dropout import Dropout, step_randomness

__all__ = [
    'AdaptiveAveragePooling2D',
    'AuxiliaryHead',
    'BatchNormalization',
    'Conv2D',
    'DepthwiseConv2D',
    'Dropout',
    'FullyConnectedConv2D',
    'GroupedConv2D',
    'L2Regularizer',
    'LocalResponseNormalization',
    'SeparableConv2D',
    'auxiliary_logits',
    'averaging_matrix',
    'batch_statistics',
    'fast_convolutions',
    'step_randomness',
    'update_moving',
]
