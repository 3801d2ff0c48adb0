"""SpecExit in JAX: reasoning models that stop thinking when they are done."""
