"""Named DiT configurations: each a mapping that overrides the defaults of `DiTConfig`."""

_SIZES = {
    "s": {"depth": 12, "width": 384, "heads": 6},
    "b": {"depth": 12, "width": 768, "heads": 12},
    "l": {"depth": 24, "width": 1024, "heads": 16},
    "xl": {"depth": 28, "width": 1152, "heads": 16},
}
"""Peebles and Xie 2023, Table 1."""

PRESETS: dict[str, dict] = {
    # dit-s2 ... dit-xl8: the published sizes and patches at 256x256, batch 256, 400,000 steps (as
    # their ablations). DiT-XL/2 took about 5.7 steps/s on a TPU v3-256.  Not yet run here.
    **{
        f"dit-{size}{patch}": {"network": {**values, "patch": patch}}
        for size, values in _SIZES.items()
        for patch in (2, 4, 8)
    },
    # ImageNet-100 as the paper has it: DiT-XL/2, its autoencoder retrained, guidance 4, 250 steps.
    # The paper states no durations.  Ours: 400,000 steps at 130,000 images (788 passes) in
    # proportion to the base, at least 50,000; the autoencoder 100,000 steps of 64 images (49
    # passes), at least 20,000.  Not yet run.
    "imagenet100": {
        "training": {"full_at_images": 130_000, "least_steps": 50_000},
        "vae": {"training": {"full_at_images": 130_000, "least_steps": 20_000}},
    },
    # 32x32 to see that it learns: f = 4, 16 tokens; 1,871,136 and 648,375 parameters.  On 500
    # CIFAR-10 images (JPEG 75) 2,755 s on a third of a core (AMD EPYC), reconstruction 22.5 dB,
    # loss 0.88 to 0.14: colours of the classes, hardly an object (docs/dit.md; 2026-11-23).
    "cifar10-2cores": {
        "network": {"depth": 6, "width": 128, "heads": 4, "patch": 2},
        "vae": {
            "downsample": 4,
            "base_channels": 16,
            "layers_per_block": 1,
            "norm_groups": 8,
            "attention": False,
            "training": {
                "steps": 1_200,
                "batch": 32,
                "lr": 1e-3,
                "lr_decay_part": 0.5,
                "discriminator": {"base_channels": 32, "layers": 2, "starts_at_part": 0.7},
            },
        },
        "training": {
            "steps": 2_400,
            "batch": 64,
            "lr": 1e-3,
            "lr_rampup_part": 0.0625,
            "lr_decay_part": 0.5,
            "ema_decay": 0.999,
        },
        "sampler": {"steps": 50, "batch": 256},
        "compute": {"compile": "off"},
    },
    # scikit-learn's digits, 8x8: f = 2, 4 tokens; 256,864 and 158,805 parameters, 49 s of one core
    # (AMD EPYC) on 300 images, reconstruction 25.7 dB.  Of 500 samples a 3-nearest-neighbours
    # classifier of real digits gives 99% their label (89% without guidance; 2026-11-23).
    "digits": {
        "network": {"depth": 3, "width": 64, "heads": 2, "patch": 2},
        "vae": {
            "downsample": 2,
            "base_channels": 16,
            "layers_per_block": 1,
            "norm_groups": 4,
            "attention": False,
            "training": {
                "steps": 300,
                "batch": 32,
                "lr": 2e-3,
                "lr_decay_part": 0.5,
                "discriminator": {"base_channels": 16, "layers": 1, "starts_at_part": 0.7},
            },
        },
        "training": {
            "steps": 1_200,
            "batch": 64,
            "lr": 2e-3,
            "lr_rampup_part": 0.05,
            "lr_decay_part": 0.5,
            "ema_decay": 0.99,
        },
        "flips": False,
        "sampler": {"steps": 50, "guidance": 2.0, "batch": 256},
        "compute": {"compile": "off"},
    },
}
