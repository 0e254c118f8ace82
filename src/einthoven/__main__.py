"""``python -m einthoven`` is the ``einthoven`` command."""

from einthoven.cli import main

main()
