"""``python -m einthoven`` is the ``einthoven`` command."""

from einthoven.cli import main

# Worker processes import this module again where they cannot be forked.
if __name__ == "__main__":
    main()
