"""``python -m dsgd_bench``: the same as the command ``dsgd-bench``."""

import sys

from dsgd_bench.cli import main

if __name__ == "__main__":
    sys.exit(main())
