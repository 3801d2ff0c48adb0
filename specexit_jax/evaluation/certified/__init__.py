"""Policies with a certificate, and ablations whose arms are certified in the same way."""
