"""One short script per job; run each as ``python -m train.NAME --help``."""
