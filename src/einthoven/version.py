"""Which version of Einthoven this is, and what it is not."""

__version__ = "0.1.0"

# Stands wherever results are shown.
DISCLAIMER = "Research software, not a medical device."
