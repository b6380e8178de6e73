"""How many captions a second one driver writes, scores and races, whoever makes them."""
