"""Architectures, one file per family; `einthoven.models.registry` lists them."""
