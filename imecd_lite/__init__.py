"""IMECD-lite: ID-guided multimodal experts with contrastive diffusion for sequential recommendation."""

__version__ = "0.1.0"
