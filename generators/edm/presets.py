"""Named EDM configurations: each a mapping that overrides the defaults of `EDMConfig`."""

PRESETS: dict[str, dict] = {
    # Karras et al. 2022, class-conditional CIFAR-10, DDPM++: FID 1.79 (VP, deterministic, 18 steps)
    # after 200 Mimg, about 2 days on 8 V100 (their Appendix F).  Not yet run here.
    "cifar10": {},
    # The same for the bases of 500 to 50,000 images: 4,000 passes over the base, at least 10 Mimg.
    # The paper does not state its durations; this is our choice.  Not yet run.
    "cifar10-bases": {"training": {"full_at_images": 50_000, "least_nimg": 10_000_000}},
    # BloodMNIST at the paper's 32x32 (MedMNIST's 64 resized): as above.  The paper does not state
    # its setting. Not yet run.
    "bloodmnist": {"training": {"full_at_images": 50_000, "least_nimg": 10_000_000}},
    # CIFAR-10 in 500 images on one core: 2.8 million parameters on patches of 2x2 pixels, more
    # weight on high noise, no augmentation.  5,436 s (AMD EPYC with AVX512_BF16, the other core
    # busy; compute: {compile: on, training_precision: bf16}), loss per pixel value 0.16: half of
    # the samples can be recognised, learnt by heart (docs/edm.md; 2026-11-23). Again on 2026-11-30:
    # 3,795 s, loss 0.17.
    "cifar10-2cores": {
        "network": {
            "model_channels": 32,
            "channel_mult": [1, 2, 4],
            "num_blocks": 1,
            "attn_resolutions": [],
            "dropout": 0.0,
            "patch": 2,
        },
        "training": {
            "total_nimg": 800_000,
            "batch": 32,
            "lr": 4e-3,
            "lr_rampup_nimg": 3_200,
            "lr_decay_nimg": 500_000,
            "ema_halflife_nimg": 8_000,
            "P_mean": 0.1,
            "P_std": 1.3,
            "augmentation": {"kinds": []},
        },
        "sampler": {"sigma_min": 0.01, "sigma_max": 20.0, "batch": 64},
    },
    # scikit-learn's digits, 8x8: 93,969 parameters, 600 steps; on one core (AMD EPYC, AVX-512)
    # about 17 s to train and 3.5 s per 1,000 images, loss per pixel about 0.4.  Chosen by held-out
    # denoising loss, time and sample sheets of one subset of 200 images, without any classifier.
    # Ten steps from sigma 20 differ from 60 steps by 5 grey levels of 255 (r.m.s.), a third of a
    # level of the digits' own 17.
    "digits": {
        "network": {
            "model_channels": 16,
            "channel_mult": [2, 2],
            "num_blocks": 0,
            "attn_resolutions": [],
            "dropout": 0.0,
        },
        "training": {
            "total_nimg": 38_400,
            "batch": 64,
            "optimizer": "adamw",
            "lr": 8e-3,
            "weight_decay": 0.01,
            "lr_rampup_nimg": 3_200,
            "lr_decay_nimg": 12_800,
            "ema_halflife_nimg": 2_000,
            "augmentation": {"kinds": ["shift"], "probability": 0.5, "shift_pixels": 1},
        },
        "sampler": {"steps": 10, "sigma_max": 20.0, "batch": 256},
        "compute": {"compile": "off"},
    },
}
