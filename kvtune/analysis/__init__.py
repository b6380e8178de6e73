"""What may be said of a study: scores with uncertainty, the choice, held-out results, sensitivity."""
