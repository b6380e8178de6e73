"""Which settings are tried next, and the loop that tries them."""
