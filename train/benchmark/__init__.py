"""Measurements beside PyTorch and the book's way: ``python -m train.benchmark --help``."""
