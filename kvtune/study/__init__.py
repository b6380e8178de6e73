"""A study on disk, and captions written into it."""
