"""Code systems, label sets, and the mapping from the one to the other."""
