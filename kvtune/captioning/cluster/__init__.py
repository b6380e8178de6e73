"""Captions written by many workers, one a device, on this machine or on a Ray cluster."""
