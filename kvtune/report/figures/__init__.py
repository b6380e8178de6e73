"""Pictures for a paper's column, one file each; :mod:`kvtune.report.figures.drawing` is what they share."""
