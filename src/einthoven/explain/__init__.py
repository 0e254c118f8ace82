"""Explanations: which leads, moments and beats of a recording carried a decision."""
