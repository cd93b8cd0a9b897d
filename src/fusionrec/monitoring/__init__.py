"""Drift between a reference and a batch: what changed, by how much, and which modality is to blame."""
