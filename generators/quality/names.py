"""Names that a configuration needs without the networks themselves."""

INCEPTION = "pt_inception-2015-12-05-6726825d.pth"
"""The file that pytorch-fid downloads."""
VIT = "vit_base_patch16_224.augreg2_in21k_ft_in1k"
"""timm's name of the ImageNet classifier whose features the diversity is measured in: ViT-B/16.
The paper does not say which one it took.
"""
DINOV2 = "vit_large_patch14_dinov2.lvd142m"
"""timm's name of DINOv2 ViT-L/14 without registers, whose features Stein et al. (2023, "Exposing
flaws of generative model evaluation metrics") found to agree with people's eyes best.
"""
DINOV2_SIZE = 224
"""Pixels a side that they resize to, bicubically."""
SPLITS = 10
"""Of a pool, over which the Inception Score is averaged."""
CLASSIFIER = "classifier"
"""The grid's own, as an extractor."""
