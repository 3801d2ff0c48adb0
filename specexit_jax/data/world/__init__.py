"""The reasoning world of the bundled model: its tasks, and the writer of its traces."""
