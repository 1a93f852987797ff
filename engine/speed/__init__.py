"""How fast the parts of training are: benchmark_image_classifier.py."""
