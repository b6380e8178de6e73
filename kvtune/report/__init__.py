"""How results look: terminal, figures, page and data. Formats of files and JSON outputs: docs/formats.md."""
