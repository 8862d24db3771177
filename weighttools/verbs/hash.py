"""The verb ``hash``: a fingerprint of what a checkpoint holds, whatever file it is in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from weighttools.core.options import Option, takes
from weighttools.io.progress import Progress, silent
from weighttools.verbs.open import open as open_checkpoint
from weighttools.verbs.options import READING, TAKING, THREADS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Executor

    from weighttools.core.tensormap import TensorMap
    from weighttools.formats.opening import PathLike
    from weighttools.verbs.record_types import HashRecord

OPTIONS = (
    Option(
        "algorithm", default="xxh3-128", choices=("xxh3-128", "sha256", "blake3"), shows_default=True,
        help="xxh3-128 finds what changed by accident; sha256 and blake3 (extra [hash]) also resist who means harm.",
    ),
    Option("decoded", bool, False, "Hash quantised tensors by their decoded values, not as they are stored."),
    Option("manifest", is_path=True, metavar="FILE", help="Write a manifest, for verify, of all files and tensors."),
    Option(
        "manifest_format", default="json", choices=("json", "oms"), shows_default=True,
        help="json is our own; oms an unsigned statement of OpenSSF model signing, for others to sign.",
    ),
    Option("force", bool, False, "Replace an existing manifest."),
    Option("files", bool, False, "Also the SHA-256 of each file, and the web UI's AutoV2 and AutoV3."),
    *TAKING,
    *THREADS,
    *READING,
)  # fmt: skip


@takes(*OPTIONS)
def hash(
    path: PathLike | TensorMap,
    *,
    algorithm: str = "xxh3-128",
    decoded: bool = False,
    manifest: PathLike | None = None,
    manifest_format: str = "json",
    force: bool = False,
    files: bool = False,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    assume: str | None = None,
    root: str | None = None,
    threads: int | None = None,
    executor: Executor | None = None,
    planned: Progress = silent,
    progress: Progress = silent,
) -> HashRecord:
    """Fingerprint a checkpoint: equal for equal names, dtypes, shapes and bits in every format, order and sharding.

    Metadata are not part of it. The definition, for other programs, is ``examples/content-hash.md``.

    Parameters
    ----------
    path
        As for `open`, or an open map.
    algorithm
        ``"xxh3-128"``, which is quick and finds what changed by accident; ``"sha256"`` and ``"blake3"`` (extra
        ``[hash]``) also resist who means harm.
    decoded
        Quantised tensors go by their decoded values (float32), and not by their blocks as they are stored.
    manifest
        Write a manifest there, which `verify` takes: of every file of the directory (or the weight files, where `path`
        is one), and of every tensor with its pieces.
    manifest_format
        ``"json"``, our own; or ``"oms"``: an unsigned in-toto statement as OpenSSF model signing v1.0 has it, for
        others to sign. It is of files alone.
    force
        Replace an existing manifest.
    files
        Also the SHA-256 of each weight file; AutoV2, the first ten digits of it; and for safetensors AutoV3, the first
        twelve of the SHA-256 of what follows the header, as stable-diffusion-webui shows them.
    include, exclude, assume, root
        As for `open`.
    threads
        Worker threads; default: one a CPU.
    executor
        Any `concurrent.futures.Executor` to compute in, instead of threads.
    planned
        Called once, with the number of bytes that are going to be read.
    progress
        Called with the number of bytes just done.

    Returns
    -------
    HashRecord
        A ``weighttools.hash/1`` record; digests are hexadecimal, and the same for any number of threads.

    Raises
    ------
    MissingDependencyError
        The algorithm's package is not installed.
    SpecError
        A manifest is asked for of some tensors only, or of a map that is open.
    SourceError
        The manifest exists, and `force` is not given.
    UnsupportedError
        Quantised blocks hold big-endian numbers.

    Examples
    --------
    >>> hash("fixtures/safetensors/tiny/model.safetensors")["content"]
    '7be8243de4a8379aeda2ebaa09271340'
    """
    from weighttools.analyzers.digest.tree import VERSION, content_digest, digests, named_digests
    from weighttools.core import engine
    from weighttools.formats.opening import name_of

    if manifest is not None:
        from weighttools.verbs.manifest import check_manifest

        check_manifest(manifest, path, force, is_part=bool(include or exclude))
    tensor_map = open_checkpoint(path, include=include, exclude=exclude, assume=assume, root=root)
    n_bytes = sum(spec.nbytes for spec in tensor_map.specs())
    planned(n_bytes)
    with engine.threads_for(n_bytes, threads) as pool:
        window = engine.window_for(threads)
        found = digests(tensor_map.values(), algorithm, decoded, executor or pool, window, progress)
        stored, named = named_digests(tensor_map, found)
    record: dict[str, Any] = {
        "schema": "weighttools.hash/1",
        "path": name_of(path),
        "algorithm": algorithm,
        "version": VERSION,
        "content": content_digest(named, algorithm).hex(),
        "n_tensors": len(tensor_map),
        "decoded": decoded,
        "tensors": [
            {"name": name, "dtype": spec.label, "shape": list(spec.shape), "hash": stored[name].digest.hex()}
            for name, spec in zip(tensor_map, tensor_map.specs(), strict=True)
        ],
        "aliases": dict(tensor_map.aliases),
        "notes": list(tensor_map.origin.notes),
    }
    if manifest is not None:
        from weighttools.verbs.manifest import write_manifest

        record["notes"] += write_manifest(manifest, tensor_map, stored, record, manifest_format, force, threads)
    if files:
        from weighttools.analyzers.digest.files import file_row

        record["files"] = [file_row(file) for file in tensor_map.origin.files]
    return cast("HashRecord", record)
