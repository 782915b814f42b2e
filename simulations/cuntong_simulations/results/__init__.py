"""Results of the model: figures, files, a report, and the commands' screens."""
