"""Training, evaluation and prediction: the loops, and the parts that they are made of."""
