"""What turns requests into outcomes: a session, methods, slots, batches, streams and conversations."""
