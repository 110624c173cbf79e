"""Speed and memory against PyTorch and the book's code, and the table of perplexities.

``python -m train.benchmark --help``
"""
