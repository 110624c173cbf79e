"""What stands on the page of ``python -m train.inspect``, and how it gets there."""
