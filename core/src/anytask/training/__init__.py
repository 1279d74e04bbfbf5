"""Training: the losses that recipes build on."""

from anytask.training.contrastive import bidirectional_contrastive_loss
from anytask.training.distillation import distillation_loss

__all__ = ["bidirectional_contrastive_loss", "distillation_loss"]
