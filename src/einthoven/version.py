"""The version of Einthoven."""

__version__ = "0.1.0"
