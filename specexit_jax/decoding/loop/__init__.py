"""The compiled loop: verify, accept, decide, commit, draft."""
