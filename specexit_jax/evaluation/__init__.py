"""Evaluation: records of problems, statistics, bounds, latency, tables and figures."""
