"""Two runs on the same records: how far apart their scores are, and whether by more than chance.

The records that both have been tested on are drawn by patient, the same ones for both runs, so that
a difference has no share of what makes some records harder than others.
"""
