"""``python -m skimba``."""

from skimba.cli import main

main()
