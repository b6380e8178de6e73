"""Speed, memory and search cost, measured."""
