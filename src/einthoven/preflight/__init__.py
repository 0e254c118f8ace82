"""Checks before a long run: what is there, what is missing or wrong, and what to do next.

A check looks at one subject and says what it found; `run_preflight_checks` goes through them all.
Everything is read cheaply, so that a million records take seconds: only the columns that are
needed, only the sizes of shards, and of the duplicate audit what `einthoven prepare` has written.
"""
