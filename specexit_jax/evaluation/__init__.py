"""What is concluded: records of problems, statistics, bounds, latency, tables and figures."""
