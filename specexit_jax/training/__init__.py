"""Training: the target from documents, the draft from the target."""
