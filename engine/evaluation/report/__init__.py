"""Reports of evaluations; `python -m engine.evaluation.report ROWS` makes one from the rows of `--predictions_path`."""
