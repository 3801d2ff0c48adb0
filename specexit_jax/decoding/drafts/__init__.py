"""What is proposed: chains, trees, sampled drafts, and which of them are kept."""
