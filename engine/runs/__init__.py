"""Runs at a glance: `python -m engine.runs TRAIN_DIR...`. Needs no TensorFlow, which takes seconds to import."""
