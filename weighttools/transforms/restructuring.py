"""What edits of a checkpoint's structure share: their report, and hashes in the metadata that no longer hold."""

from __future__ import annotations

from typing import Any

from weighttools.core.tensormap import TensorMap

STALE_HASHES = ("sshs_model_hash", "sshs_legacy_hash", "modelspec.hash_sha256")
"""Metadata that are digests of the file's tensors as they were (sd-scripts, ModelSpec 1.0.1 "hash_sha256")."""


def restructured(tensor_map: TensorMap, transform: str, **facts: Any) -> TensorMap:
    """Return an edited map with the report of its edit, and without hashes that were those of the map before.

    Parameters
    ----------
    tensor_map
        After the edit.
    transform
        The edit's name, e.g. ``"rename"``.
    facts
        What the report says of it: plain JSON values.
    """
    stale = [key for key in STALE_HASHES if key in tensor_map.metadata]
    if stale:
        metadata = {key: value for key, value in tensor_map.metadata.items() if key not in stale}
        dropped = f"metadata {', '.join(stale)} left out: of the file as it was"
        tensor_map = tensor_map.replace(metadata=metadata).noted(dropped)
    return tensor_map.reported({"transform": transform, "names": (), **facts})
