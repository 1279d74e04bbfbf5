"""What a run tells: log, curves, model card."""
