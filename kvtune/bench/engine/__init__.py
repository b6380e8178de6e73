"""Speed, memory and noise of the engine, measured in one run beside what it replaces."""
