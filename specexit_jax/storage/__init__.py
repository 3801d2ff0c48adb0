"""Files that survive a killed process: checkpoints, JSON lines, locks, and digests of the inputs that a file was made
from."""
