"""One self-contained HTML page about a run, and the model card."""
