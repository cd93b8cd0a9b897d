"""``python -m fusionrec``."""

import sys

from fusionrec.cli import main

if __name__ == "__main__":
    sys.exit(main())
