"""Networks of the task-incremental benchmarks: their sizes, their outputs, and the order of their draws."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from clray.errors import DataError
from clray.vision.networks import NETWORKS, resnet18
from clray.vision.networks.alexnet import AlexNet
from clray.vision.networks.base import Network
from clray.vision.networks.mlp import Mlp
from clray.vision.networks.reduced_resnet18 import ReducedResNet18
from clray.vision.networks.resnet18 import ResNet18


def seeded(network: Network, shape: tuple[int, ...], outputs: int, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return network.build(shape, outputs)


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


REDUCED = ReducedResNet18(name="reduced-resnet18")
UNUSED = ReducedResNet18(name="reduced-resnet18", unused_convolutions=True)
SMALL = ReducedResNet18(name="reduced-resnet18", filters=8)
ALEXNET = AlexNet(name="alexnet")


class TestSizes:
    """The parameter counts of the official codes' networks."""

    @pytest.mark.parametrize(
        ("network", "shape", "outputs", "parameters"),
        [
            (Mlp(name="mlp", hidden=[100, 100]), (1, 28, 28), 10, 89_610),
            (Mlp(name="mlp"), (1, 28, 28), 10, 269_322),
            (REDUCED, (3, 32, 32), 100, 496_680),
            (REDUCED, (3, 84, 84), 100, 544_680),
            (UNUSED, (3, 32, 32), 100, 496_680),  # 1,108,680 with the 612,000 that are never used
            (ALEXNET, (3, 32, 32), 100, 6_717_860 - 9_088),  # less batch normalisations that are never used
            (ResNet18(name="resnet18", pretrained=False), (3, 224, 224), 1000, 11_689_512),
        ],
    )
    def test_parameters(self, network, shape, outputs, parameters):
        assert count(network.build(shape, outputs)) == parameters

    def test_tensors_of_the_reduced_resnet(self):
        assert len(list(REDUCED.build((3, 32, 32), 100).parameters())) == 48

    def test_what_the_unused_convolutions_would_have(self):
        widths = [20, 20, 40, 40, 80, 80, 160, 160]
        assert 496_680 + sum(9 * w * w for w in widths) == 1_108_680

    @pytest.mark.parametrize(
        ("network", "shape"),
        [
            (Mlp(name="mlp", hidden=[5]), (1, 28, 28)),
            (SMALL, (1, 28, 28)),
            (SMALL, (3, 32, 32)),
            (SMALL, (3, 84, 84)),
            (ALEXNET, (3, 32, 32)),
            (ResNet18(name="resnet18", pretrained=False), (3, 64, 64)),
        ],
    )
    def test_every_parameter_takes_part(self, network, shape):
        """A-GEM and TAG need a gradient of every one."""
        net = network.build(shape, 7)
        logits = net(torch.rand(3, *shape))
        assert logits.shape == (3, 7)
        logits.square().sum().backward()
        assert all(p.grad is not None for p in net.parameters())


def drawn(parts: Iterator[nn.Module] | list[nn.Module]) -> list[Tensor]:
    return [p for part in parts for p in part.parameters()]


def linears(*widths: int) -> list[nn.Module]:
    return [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]


def of_kinds(module: nn.Module, *kinds: type[nn.Module]) -> list[nn.Module]:
    return [part for part in module.modules() if isinstance(part, kinds)]


def reduced_layers(unused: bool) -> list[nn.Module]:
    """All layers with weights that are drawn, as the official class makes them: of a block the first convolution, the
    second where there is one, the shortcut."""
    used = [nn.Conv2d(3, 20, 3, bias=False)]
    inputs = 20
    for width in (20, 40, 80, 160):
        for _ in range(2):
            used.append(nn.Conv2d(inputs, width, 3, bias=False))
            if unused:
                nn.Conv2d(width, width, 3, bias=False)
            if inputs != width:
                used.append(nn.Conv2d(inputs, width, 1, bias=False))
            inputs = width
    return [*used, nn.Linear(160, 100)]


class TestOrderOfDrawing:
    """The same seed gives the weights that the official codes begin with."""

    @pytest.mark.parametrize("unused", [False, True])
    def test_reduced_resnet(self, unused):
        network = UNUSED if unused else REDUCED
        net = seeded(network, (3, 32, 32), 100)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            expected = drawn(reduced_layers(unused))
        found = drawn(of_kinds(net, nn.Conv2d, nn.Linear))
        assert sorted(p.numel() for p in found) == sorted(p.numel() for p in expected)
        for p in expected:
            assert any(p.shape == q.shape and torch.equal(p, q) for q in found)

    def test_the_first_weights_by_name(self):
        net = seeded(REDUCED, (3, 32, 32), 100, seed=1)
        with torch.random.fork_rng():
            torch.manual_seed(1)
            first, second = nn.Conv2d(3, 20, 3, bias=False), nn.Conv2d(20, 20, 3, bias=False)
        state = net.state_dict()
        assert torch.equal(state["conv1.weight"], first.weight)
        assert torch.equal(state["blocks.0.conv1.weight"], second.weight)

    def test_unused_convolutions_change_weights_and_nothing_else(self):
        plain, unused = (seeded(n, (3, 32, 32), 100) for n in (REDUCED, UNUSED))
        assert list(plain.state_dict()) == list(unused.state_dict())
        assert torch.equal(plain.get_parameter("conv1.weight"), unused.get_parameter("conv1.weight"))
        first = "blocks.0.conv1.weight"
        assert torch.equal(plain.get_parameter(first), unused.get_parameter(first))
        for name in ("blocks.1.conv1.weight", "blocks.2.shortcut.weight", "linear.weight"):
            assert not torch.equal(plain.get_parameter(name), unused.get_parameter(name))
        unused.load_state_dict(plain.state_dict())
        x = torch.rand(2, 3, 32, 32)
        assert torch.equal(plain(x), unused(x))

    def test_mlp_and_alexnet(self):
        for network, make in (
            (Mlp(name="mlp", hidden=[6, 5]), lambda: linears(784, 6, 5, 10)),
            (ALEXNET, lambda: [
                nn.Conv2d(1, 64, 3), nn.Conv2d(64, 128, 2), nn.Conv2d(128, 256, 2), *linears(256 * 4, 2048, 2048, 10)
            ]),
        ):  # fmt: skip
            net = seeded(network, (1, 28, 28), 10)
            with torch.random.fork_rng():
                torch.manual_seed(0)
                expected = drawn(make())
            assert [p.shape for p in net.parameters()] == [p.shape for p in expected]
            assert all(torch.equal(p, q) for p, q in zip(net.parameters(), expected, strict=True))


class TestWhatTheyCompute:
    def test_reduced_resnet(self):
        """conv, ReLU, batch norm, plus the shortcut, ReLU, batch norm; the stem in the usual order."""
        net = seeded(SMALL, (3, 32, 32), 5)
        x = torch.rand(6, 3, 32, 32)
        state = {name: p.detach() for name, p in net.named_parameters()}

        def norm(h: Tensor, name: str) -> Tensor:
            return F.batch_norm(h, None, None, state[f"{name}.weight"], state[f"{name}.bias"], training=True)

        h = norm(F.conv2d(x, state["conv1.weight"], padding=1), "bn1").relu()
        for i, stride in enumerate((1, 1, 2, 1, 2, 1, 2, 1)):
            block = f"blocks.{i}"
            inner = norm(
                F.conv2d(h, state[f"{block}.conv1.weight"], stride=stride, padding=1).relu(), f"{block}.norm1.0"
            )
            shortcut = state.get(f"{block}.shortcut.weight")
            past = h if shortcut is None else F.conv2d(h, shortcut, stride=stride)
            h = norm((inner + past).relu(), f"{block}.norm2.0")
        expected = F.linear(h.mean((2, 3)), state["linear.weight"], state["linear.bias"])
        torch.testing.assert_close(net(x).detach(), expected, rtol=1e-4, atol=1e-5)

    def test_resnet18_is_torchvisions(self):
        """Names, shapes and sums, so that the published weights load and mean what they mean there."""
        net = seeded(ResNet18(name="resnet18", pretrained=False), (3, 64, 64), 11)
        layers = {"conv1": (64, 3, 7, 7), "fc": (11, 512)}
        norms = {"bn1": 64}
        inputs = 64
        for stage, width in enumerate((64, 128, 256, 512), start=1):
            for block in (0, 1):
                name = f"layer{stage}.{block}"
                layers |= {f"{name}.conv1": (width, inputs, 3, 3), f"{name}.conv2": (width, width, 3, 3)}
                norms |= {f"{name}.bn1": width, f"{name}.bn2": width}
                if inputs != width:
                    layers[f"{name}.downsample.0"] = (width, inputs, 1, 1)
                    norms[f"{name}.downsample.1"] = width
                inputs = width
        expected: dict[str, tuple[int, ...]] = {f"{name}.weight": shape for name, shape in layers.items()}
        expected["fc.bias"] = (11,)
        for name, width in norms.items():
            expected |= {f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")}
            expected[f"{name}.num_batches_tracked"] = ()
        state = net.state_dict()
        assert {name: tuple(value.shape) for name, value in state.items()} == expected
        assert len(expected) == 122

        def conv(h: Tensor, name: str, stride: int = 1) -> Tensor:
            weight = state[f"{name}.weight"]
            return F.conv2d(h, weight, stride=stride, padding=weight.shape[-1] // 2)

        def norm(h: Tensor, name: str) -> Tensor:
            mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
            return F.batch_norm(h, mean, var, state[f"{name}.weight"], state[f"{name}.bias"])

        h = x = torch.rand(2, 3, 64, 64)
        h = F.max_pool2d(norm(conv(h, "conv1", 2), "bn1").relu(), 3, 2, padding=1)
        for stage in range(1, 5):
            for block in (0, 1):
                name, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
                inner = norm(conv(h, f"{name}.conv1", stride), f"{name}.bn1").relu()
                inner = norm(conv(inner, f"{name}.conv2"), f"{name}.bn2")
                if f"{name}.downsample.0.weight" in state:
                    h = norm(conv(h, f"{name}.downsample.0", stride), f"{name}.downsample.1")
                h = (inner + h).relu()
        expected_logits = F.linear(h.mean((2, 3)), state["fc.weight"], state["fc.bias"])
        torch.testing.assert_close(net.eval()(x).detach(), expected_logits, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize(
        ("network", "places"),
        [
            (Mlp(name="mlp", hidden=[20, 20], dropout=0.5), 2),
            (ReducedResNet18(name="reduced-resnet18", filters=8, dropout=0.5), 16),
        ],
    )
    def test_dropout_is_where_it_is_said_and_off_in_evaluation(self, network, places):
        net = network.build((1, 28, 28), 10)
        assert [d.p for d in of_kinds(net, nn.Dropout)] == [0.5] * places
        x = torch.rand(4, 1, 28, 28)
        assert not torch.equal(net(x), net(x))
        net.eval()
        assert torch.equal(net(x), net(x))

    def test_alexnets_dropout_is_fixed(self):
        net = ALEXNET.build((3, 32, 32), 100)
        assert [d.p for d in of_kinds(net, nn.Dropout)] == [0.2, 0.2, 0.5, 0.5, 0.5]


class TestSettings:
    def test_each_by_its_name(self):
        for name, schema in NETWORKS.items():
            assert schema(name=name).model_dump()["name"] == name

    @pytest.mark.parametrize(
        "wrong", [{"name": "mlp", "hidden": []}, {"name": "mlp", "dropout": 1.0}, {"name": "mlp", "width": 3},
                  {"name": "alexnet", "dropout": 0.1}, {"name": "reduced-resnet18", "filters": 0}],
    )  # fmt: skip
    def test_wrong_ones_are_refused(self, wrong):
        with pytest.raises(ValidationError):
            NETWORKS[wrong["name"]](**wrong)


NAME = "resnet18-f37072fd.pth"


class TestImageNetWeights:
    @pytest.fixture(autouse=True)
    def _places(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CLRAY_DATA", str(tmp_path / "data"))
        monkeypatch.setenv("CLRAY_CACHE", str(tmp_path / "cache"))

    def test_a_foreign_file_is_refused(self, tmp_path):
        file = tmp_path / "data" / "resnet18" / NAME
        file.parent.mkdir(parents=True)
        file.write_bytes(b"something else")
        with pytest.raises(DataError, match=r"data/resnet18/.*not the published weights .*f37072fd.*remove it"):
            ResNet18(name="resnet18").build((3, 64, 64), 10)

    @pytest.mark.parametrize("where", ["data", "cache"])
    def test_where_they_are_looked_for(self, where, tmp_path, monkeypatch):
        """The file's name holds the beginning of its hash."""
        name = f"resnet18-{hashlib.sha256(b'weights').hexdigest()[:8]}.pth"
        monkeypatch.setattr(resnet18, "_IMAGENET", f"https://nowhere.invalid/{name}")
        file = tmp_path / where / "resnet18" / name
        file.parent.mkdir(parents=True)
        file.write_bytes(b"weights")
        assert resnet18.imagenet_weights() == file

    def test_without_them_and_without_a_network(self, monkeypatch):
        import pooch
        from requests.exceptions import ConnectionError

        def fail(*args: object, **kwargs: object) -> None:
            raise ConnectionError("no route to host\nand much more")

        monkeypatch.setattr(pooch, "retrieve", fail)
        with pytest.raises(DataError, match=r"could not be downloaded from https://.*/resnet18-.*: no route to host$"):
            resnet18.imagenet_weights()

    def test_they_are_loaded_and_the_head_is_new(self, tmp_path, monkeypatch):
        theirs = ResNet18(name="resnet18", pretrained=False).build((3, 64, 64), 1000)
        torch.save(theirs.state_dict(), tmp_path / "weights.pth")
        monkeypatch.setattr(resnet18, "imagenet_weights", lambda: tmp_path / "weights.pth")
        net = ResNet18(name="resnet18").build((3, 64, 64), 200)
        assert net.get_parameter("fc.weight").shape == (200, 512)
        for name, value in theirs.state_dict().items():
            if not name.startswith("fc."):
                assert torch.equal(net.state_dict()[name], value)
        assert all(p.requires_grad for p in net.parameters())
