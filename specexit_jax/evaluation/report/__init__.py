"""The reports of an evaluation: results.json, report.md, report.html, their tables and figures."""
