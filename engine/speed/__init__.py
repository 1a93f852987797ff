"""Benchmarks of the parts of training, for benchmark_image_classifier.py."""
