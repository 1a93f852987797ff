"""Classifiers loaded from checkpoints, SavedModels, TFLite and ONNX files.

classifier = load_classifier('/tmp/net.tflite')
classifier.probabilities(images)
"""

from engine.classifiers.classifier import Classifier, Runtime, in_batches
from engine.classifiers.interface import Interface, softmax
from engine.classifiers.loading import load_classifier, size_in_bytes

__all__ = ['Classifier', 'Interface', 'Runtime', 'in_batches', 'load_classifier', 'size_in_bytes', 'softmax']
