"""Searching: spaces, rounds of trials, the study on disk, choosing a point of the front."""
