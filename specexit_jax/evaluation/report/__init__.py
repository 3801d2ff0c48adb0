"""What an evaluation leaves to be read: results.json, report.md, report.html, their tables and figures."""
