"""Prediction: `Predictor(path).predict(images)`."""

from engine.prediction.predictor import Guess, Prediction, Predictor

__all__ = ['Guess', 'Prediction', 'Predictor']
