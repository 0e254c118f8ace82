"""Einthoven: raw 12-lead ECG archives in, a trained and honestly evaluated classifier out.

Research software, not a medical device.
"""

__version__ = "0.1.0"
