"""Networks from configurations, and weights from files."""

from typing import TYPE_CHECKING

from equigrid.generators.common.weights import check_names, read

if TYPE_CHECKING:
    import torch

    from equigrid.generators.edm.config import EDMConfig
    from equigrid.generators.edm.network import EDMNetwork

_RESAMPLE_FILTER = ".resample_filter"


def network_for(config: "EDMConfig", *, shape: tuple[int, int, int], classes: int) -> "EDMNetwork":
    """The network of a configuration for images of `shape` (H, W, C), on the meta device, without
    values.
    """
    import torch

    from equigrid.generators.edm.network import EDMNetwork

    height, width, channels = shape
    with torch.device("meta"):
        return EDMNetwork(
            config.layout(height, width),
            image_channels=channels,
            classes=classes,
            augment_labels=config.training.augmentation.labels,
            embedding_mult=config.network.embedding_mult,
            dropout=config.network.dropout,
            patch=config.network.patch,
            sigma_data=config.network.sigma_data,
        )


def forward_flops(config: "EDMConfig", shape: tuple[int, int, int], classes: int) -> int:
    """Floating-point operations of one image's forward pass."""
    import torch

    from equigrid.generators.trainer.compilation import flops_of

    height, width, channels = shape
    meta = torch.device("meta")
    return flops_of(
        network_for(config, shape=shape, classes=classes),
        torch.empty(1, channels, height, width, device=meta),
        torch.empty(1, device=meta),
        torch.empty(1, dtype=torch.int64, device=meta),
    )


def load(network: "EDMNetwork", weights: "dict[str, torch.Tensor]") -> None:
    """Put a state dict into `network` (which may be on the meta device), names and shapes checked.

    Resampling filters, which released networks carry as buffers, are compared with the one built
    in. Raises ValueError that names the first difference.
    """
    import torch

    wanted = network.state_dict()
    filters = {name for name in weights if name.endswith(_RESAMPLE_FILTER)}
    for name in sorted(filters):
        if weights[name].shape != (1, 1, 2, 2) or not torch.all(weights[name].float() == 0.25):
            raise ValueError(
                f"weights: {name} is not the 2x2 mean filter of DDPM++, the only one built in"
            )
    check_names(
        "weights", wanted, {name: value for name, value in weights.items() if name not in filters}
    )
    given = {name: weights[name].detach().to(torch.float32) for name in wanted}
    network.load_state_dict(given, strict=True, assign=True)


def from_file(
    config: "EDMConfig", *, shape: tuple[int, int, int], classes: int
) -> "dict[str, torch.Tensor]":
    """The weights that config.weights names, float32, checked against the configured network."""
    assert config.weights is not None
    network = network_for(config, shape=shape, classes=classes)
    load(network, read(config.weights))
    return {name: value.contiguous() for name, value in network.state_dict().items()}
