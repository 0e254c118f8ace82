"""Readers: one module per archive or file format, auto-detected under the data folder."""
