"""The decoding loop under the clock: its iteration, its parts, its floor and its peers."""
