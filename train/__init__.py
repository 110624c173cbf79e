"""One short script per job; run each as ``python -m train.NAME --help``."""

import signal
import sys

if sys.argv[:1] == ["-m"]:  # a command is being imported: until it has begun, Ctrl-C just ends it
    signal.signal(signal.SIGINT, signal.SIG_DFL)
