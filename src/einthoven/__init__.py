"""Einthoven: raw 12-lead ECG archives in, a trained and honestly evaluated classifier out.

Research software, not a medical device.
"""

from einthoven.version import __version__

__all__ = ["__version__"]
