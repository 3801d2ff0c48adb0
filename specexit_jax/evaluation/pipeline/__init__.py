"""An evaluation from problems to report: its stages, each of which can be run alone."""
