"""``regrad duplicates`` as a script, for ``ray job submit -- python jobs/duplicates.py``."""

import os
import sys

if __name__ == "__main__":
    here = os.path.dirname(os.path.realpath(__file__))
    sys.path[:] = [folder for folder in sys.path if folder != here]  # no file of it is a module, select.py least of all

    from regrad.commands.lists.duplicates import main

    sys.exit(main())
