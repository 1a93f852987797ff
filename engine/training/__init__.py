"""Training: `train(config)`."""

from engine.training.train import TrainResult, train

__all__ = ['TrainResult', 'train']
