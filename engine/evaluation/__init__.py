"""Evaluation: `evaluate(config)`, `compare(config)`."""

from engine.evaluation.compare import compare
from engine.evaluation.evaluate import evaluate

__all__ = ['compare', 'evaluate']
