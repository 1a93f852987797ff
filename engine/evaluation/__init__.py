"""Evaluation: `evaluate(config)`."""

from engine.evaluation.evaluate import evaluate

__all__ = ['evaluate']
