"""From prompts to labelled traces: rollouts, answers forced at boundaries, and policies replayed on both."""
