"""Files that survive a kill: checkpoints, JSON lines, locks, and names of what they were made for."""
