"""Fetching published archives: in parallel, resumed, verified."""
