"""Names that a configuration needs without the networks themselves."""

INCEPTION = "pt_inception-2015-12-05-6726825d.pth"
"""The file that pytorch-fid downloads."""
VIT = "vit_base_patch16_224.augreg2_in21k_ft_in1k"
"""timm's name of the ImageNet classifier whose features the diversity is measured in: ViT-B/16.
The paper does not say which one it took.
"""
