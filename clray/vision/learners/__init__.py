"""What methods train: a torch module with an optimizer, or perceptrons by plain SGD on one example at a time.

A method says which kind it needs (``learner``), and so does a benchmark.
"""
