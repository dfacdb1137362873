"""``python -m audioxai_utils.audit.stems``: see `command`."""

import sys

from .command import main

if __name__ == "__main__":  # worker processes import `command`, which has a name of its own
    sys.exit(main())
