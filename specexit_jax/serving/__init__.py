"""An OpenAI-compatible address: requests over HTTP join the slots of one decoding loop while it runs (docs/serving.md)."""
