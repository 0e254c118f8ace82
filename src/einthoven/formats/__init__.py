"""Single files of any supported format, read safely: see `einthoven.formats.reading`."""
