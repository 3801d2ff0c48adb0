"""From prompts to labelled traces: rollouts, answers forced at boundaries, and replay of policies on both."""
