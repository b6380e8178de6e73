"""MiniGPT-4: its model in transformers' terms, and the conversion of its published checkpoint."""
