"""What is written and read: tensors, weights, checkpoints, the book's pickles, PyTorch's layout."""
