"""Features of class texts by a frozen text encoder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from equigrid.classifiers.zero_shot.config import ENCODER_FILES, ZeroShotConfig


def text_features(
    class_names: Sequence[str], config: ZeroShotConfig, *, device: torch.device | str = "cpu"
) -> np.ndarray:
    """(classes, text_width) float32: of each class's text, the mean of the encoder's last states
    over its tokens.

    Each text is encoded alone, so its features depend on no other class. Compute them once for all
    trials of a dataset. Raises ValueError for names that are no words, for an encoder that is not
    there, with what to place where, and for one of another width than config.text_width.
    """
    texts = config.texts(class_names, len(class_names))
    tokenizer, encoder = _load(config)
    encoder = encoder.to(device).eval()
    rows = []
    with torch.inference_mode():
        for text in texts:
            tokens = tokenizer(text, return_tensors="pt", truncation=True).to(device)
            # (tokens, width) -> (width,)
            rows.append(encoder(**tokens).last_hidden_state[0].mean(0).float().cpu())
    features = torch.stack(rows).numpy()
    if features.shape[1] != config.text_width:
        raise ValueError(
            f"text_encoder {config.text_encoder!r} gives features of width {features.shape[1]}, "
            f"expected text_width {config.text_width}"
        )
    return features


def _load(config: ZeroShotConfig) -> tuple[Any, Any]:
    from transformers import AutoModel, AutoTokenizer

    source = config.text_encoder
    try:
        folder = source if Path(source).is_dir() else _from_hub(source, config.revision)
        # Safetensors alone, never a pickle; no code of a repository is run.
        tokenizer = AutoTokenizer.from_pretrained(folder)
        return tokenizer, AutoModel.from_pretrained(folder, use_safetensors=True)
    # The libraries differ in what they raise for bad files.
    except (OSError, ValueError, RuntimeError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
        raise ValueError(
            f"text_encoder {source!r} could not be loaded ({reason}); "
            f"name a folder with {ENCODER_FILES}, "
            "or download the hub's into the cache that HF_HOME names"
        ) from error


def _from_hub(source: str, revision: str) -> str:
    """The folder of a hub id in the cache, downloaded if need be; the cache's own if the hub does
    not answer.

    Raises OSError with what went wrong at the hub if the cache does not have it either.
    (generators/ goes by the same rule; neither room may import the other.)
    """
    from huggingface_hub import constants, model_info, snapshot_download
    from huggingface_hub.errors import (
        HTTPError,  # the HTTP library's own: its timeouts are no OSErrors
    )

    patterns = ["*.json", "*.txt", "*.model", "*.safetensors"]
    download = partial(snapshot_download, source, revision=revision, allow_patterns=patterns)
    try:
        # Asked first because it takes a time limit: the download would wait for an answer for ever.
        model_info(source, revision=revision, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT)
        return download()
    except (HTTPError, OSError) as error:
        try:
            return download(local_files_only=True)
        except OSError:
            raise OSError(f"{type(error).__name__}: {error}") from error
