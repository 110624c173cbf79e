"""One short script per job; run each as ``python -m train.NAME --help``."""

import signal
import sys

if sys.argv[:1] == ["-m"]:  # a command is being imported
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # not where it is ignored
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # until it has begun, Ctrl-C just ends it
    try:
        from common import config  # reads the environment
    except ValueError as error:
        sys.exit(f"error: {error}")
    del config
