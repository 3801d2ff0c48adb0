"""How drafts are proposed: chains, dynamic trees, drafts sampled for rejection sampling, and the rejection rule."""
