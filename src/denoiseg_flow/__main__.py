"""``python -m denoiseg_flow`` is the command ``denoiseg-flow`` of this installation."""

import sys

from denoiseg_flow.cli import main

if __name__ == "__main__":
    sys.exit(main())
