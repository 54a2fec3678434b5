"""Goldens of whole pipelines, made by the reference itself at three of its commits.

    python make.py CHECKOUT_V21 CHECKOUT_V2 CHECKOUT_V1

README.md says which commits, what is in the files and how long it takes. Each version runs in its own process, because their
packages have the same names.
"""

import os
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))


def main():
    for script, checkout in zip(("v21.py", "v2.py", "v1.py"), sys.argv[1:], strict=True):
        path = os.path.join(HERE, script)
        subprocess.run([sys.executable, path, os.path.abspath(checkout)], check=True)


if __name__ == "__main__":
    main()
