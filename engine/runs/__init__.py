"""The state of runs: `python -m engine.runs TRAIN_DIR...`. Does not import TensorFlow, which takes seconds."""
