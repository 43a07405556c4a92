"""From stored images to answers, in PyTorch: what the network sees, the network, and its weights as arrays."""

import contextlib
from collections.abc import Iterator
from functools import cache

import numpy as np
import timm
import torch
from timm.models import group_parameters
from torch import nn
from torch.nn import functional as F

from zoobook.arguments import did_you_mean
from zoobook.images.views import CENTRE, SKY, noise_pool, shrinking, sky_rank, sky_step
from zoobook.images.views import apply_view as apply_view_on_cores
from zoobook.learning.architectures import BOTH, ResNet
from zoobook.learning.models import GalaxyNetwork, temporarily
from zoobook.pytorch.losses import LOSSES

DTYPE = "float32"  # of weights and features, whatever the user's default is


@contextlib.contextmanager
def known_defaults() -> Iterator[None]:
    with contextlib.ExitStack() as settings:
        settings.enter_context(
            temporarily((torch.get_default_dtype, torch.set_default_dtype, getattr(torch, DTYPE)))
        )
        if torch.get_default_device().type != "cpu":  # only then, since it costs time in every call of PyTorch
            settings.enter_context(torch.device("cpu"))
        for kind in filter(torch.is_autocast_enabled, ("cpu", "cuda")):
            settings.enter_context(torch.autocast(kind, enabled=False))
        yield


class Head(nn.Module):
    """Dense layers, from as many features as the first of the widths to as many outputs as the last."""

    def __init__(self, widths: list[int], dropout: float):
        super().__init__()
        hidden: list[nn.Module] = [nn.BatchNorm1d(widths[0], affine=False)] if widths[2:] else []  # for any scale
        for features, width in zip(widths, widths[1:-1], strict=False):
            hidden += [nn.Linear(features, width), nn.ReLU(), nn.Dropout(dropout)]
        self.hidden = nn.Sequential(*hidden)
        self.output = nn.Linear(*widths[-2:])

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        with torch.autocast(features.device.type, enabled=False):
            return self.output(self.hidden(_single(features)))


class GalaxyModel(GalaxyNetwork, nn.Module):
    """An encoder of timm, dropout, and a head; images are [N, channels, image_size, image_size]."""

    ACTIVATIONS = {"sigmoid": torch.sigmoid, "softmax": lambda logits: torch.softmax(logits, -1), "linear": lambda x: x}

    LOSSES, Dropout, Head = LOSSES, nn.Dropout, Head

    def build_encoder(self, spec: dict) -> tuple[nn.Module, int]:
        encoder, self.all_stages = _encoder(spec), "all_stages" in spec
        width = getattr(encoder, "head_hidden_size", None) or encoder.num_features
        return encoder, width + sum(_earlier_channels(encoder, spec) if self.all_stages else [])

    def features(self, images: torch.Tensor) -> torch.Tensor:
        if not self.all_stages:
            return _single(self.encoder(images))
        last, maps = self.encoder.forward_intermediates(images)
        earlier = [x.mean((2, 3)) for x in maps[:-1]]  # the last one is in the encoder's own features already
        return _single(torch.cat([self.encoder.forward_head(last, pre_logits=True), *earlier], 1))

    forward = GalaxyNetwork.answer

    def to_arrays(self) -> dict[str, np.ndarray]:
        state = self.state_dict().items()
        arrays = {name: tensor.numpy(force=True) for name, tensor in state if not name.endswith("num_batches_tracked")}
        return {name: np.ascontiguousarray(array) for name, array in arrays.items()}

    def _assign(self, arrays: dict[str, np.ndarray]) -> None:
        self.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()}, strict=False)


to_arrays = GalaxyModel.to_arrays


def from_arrays(spec: dict, arrays: dict[str, np.ndarray]) -> GalaxyModel:
    with torch.random.fork_rng(devices=[]), known_defaults():  # its first, random weights are not wanted
        return GalaxyModel(spec).set_arrays(arrays).eval()


def check_architecture(name: str) -> None:
    if name not in BOTH and not timm.is_model(str(name).split(".")[0]):
        hint = did_you_mean(name, timm.list_models())
        raise ValueError(f"there is no architecture {name!r} in timm.{hint} timm.list_models() lists them all.")


def stages(model: GalaxyModel) -> list[list[str]]:
    groups = group_parameters(model.encoder, model.encoder.group_matcher(coarse=True))
    return [[f"encoder.{name}" for name in groups[key]] for key in sorted(groups)]


def freeze(model: GalaxyModel, names: set[str]) -> None:
    for name, parameter in model.named_parameters():
        if name in names:
            parameter.requires_grad_(False)


def initialize_batchnorm_stats(model: GalaxyModel, images: torch.Tensor) -> bool:
    fresh = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm) and not m.running_mean.any()]
    if not fresh:
        return False
    momenta, training = [m.momentum for m in fresh], model.training
    model.eval()
    for module in fresh:
        module.train().momentum = 1.0
    with torch.no_grad():
        model(images)
    for module, momentum in zip(fresh, momenta, strict=True):
        module.momentum = momentum
    model.train(training)
    return True


def apply_view(
    images: torch.Tensor, views: torch.Tensor, channels: int, image_size: int, share: float = CENTRE
) -> torch.Tensor:
    if images.device.type == "cpu":
        seen = apply_view_on_cores(images.numpy(), views.numpy(), channels, image_size, share)
        return torch.from_numpy(seen).permute(0, 3, 1, 2)
    return _resample(images, views, channels, image_size, share)


def _resample(images: torch.Tensor, views: torch.Tensor, channels: int, image_size: int, share: float) -> torch.Tensor:
    """The same, all images at once, as a GPU likes it."""
    stored = images.shape[1]
    factor, side, margin = shrinking(stored, image_size, share)
    kept = side * factor
    sky = torch.cat([images[:, 0], images[:, -1], images[:, 1:-1, 0], images[:, 1:-1, -1]], 1).sort(1).values
    sky = sky[:, sky_rank(sky.shape[1]), :, None, None].float()
    seen = images[:, margin : margin + kept, margin : margin + kept].permute(0, 3, 1, 2).float()
    if channels == 1:
        seen, sky = seen.mean(1, keepdim=True), sky.mean(1, keepdim=True)
    if factor > 1:
        seen = F.avg_pool2d(seen, factor)
    maps = views[:, :2] * (stored / kept)
    maps[:, :, 2] += (stored - 2 * margin - kept) / kept  # the blocks may not lie in the middle
    grid = F.affine_grid(maps, (len(images), channels, image_size, image_size), align_corners=False)
    seen = F.grid_sample(seen - sky, grid, mode="bilinear", padding_mode="zeros", align_corners=False).add_(sky)
    seen = seen.div_(255)
    if views.shape[1] > 2:
        seen = _through_other_telescopes(seen, views[:, 2:])
    return seen.contiguous(memory_format=torch.channels_last)


def _through_other_telescopes(seen: torch.Tensor, how: torch.Tensor) -> torch.Tensor:
    """Views [N, C, S, S] with other seeing, sky, stretch, brightness and noise, see :func:`.views.views`."""
    n, channels, size = seen.shape[:3]
    sigma, taken, gamma, brightness, deviation, start = how[:, :2].reshape(n, 6, 1, 1, 1).unbind(1)
    # A blur whose edges mirror the view, as the product with a matrix for each axis
    place = torch.arange(size, device=seen.device)
    here, there = place[:, None], place
    steps = torch.stack([here - there, here + there + 1, 2 * size - 1 - here - there])
    kernel = torch.exp(-0.5 * (steps / (sigma * size / 64).clamp(min=0.05)) ** 2)
    kernel = kernel.sum(1, keepdim=True)
    kernel = kernel / kernel.sum(-1, keepdim=True)
    with torch.autocast(seen.device.type, enabled=False):
        seen = kernel @ seen @ kernel.mT
    some = seen.flatten(2)[:, :, :: sky_step(size)].reshape(n, -1).sort(1).values
    sky = some[:, sky_rank(some.shape[1], SKY)].reshape(n, 1, 1, 1)
    seen = (seen - taken * sky).clamp(min=0) ** gamma * brightness
    if channels == 3:
        seen = seen * how[:, 2, :, None, None]
    values = channels * size * size
    pool = _noise_pool(values, seen.device)
    begin = (start.reshape(n) * (len(pool) - values)).long()
    noise = pool.unfold(0, values, 1)[begin].reshape(n, size, size, channels).permute(0, 3, 1, 2)
    return (seen + deviation * noise).clamp(0, 1)


@cache
def _noise_pool(size: int, device: torch.device) -> torch.Tensor:
    return torch.from_numpy(noise_pool(size)).to(device)


def _single(values: torch.Tensor) -> torch.Tensor:
    return values if values.dtype == torch.float64 else values.float()


def _encoder(spec: dict) -> nn.Module:
    name = spec["architecture"]
    check_architecture(name)
    design, options = BOTH.get(name), {"pretrained": False, "num_classes": 0, "in_chans": spec["channels"]}
    if isinstance(design, ResNet):
        return _resnet(design, options)
    try:  # transformers have one position code per patch and must know the size beforehand
        return timm.create_model(name, **options, img_size=spec["image_size"])
    except TypeError:
        return timm.create_model(name, **options)


def _earlier_channels(encoder: nn.Module, spec: dict) -> list[int]:
    """How many channels the feature maps of an encoder have, but for the last of them."""
    if not hasattr(encoder, "forward_intermediates"):
        raise ValueError(f"timm gives only the features of {spec['architecture']}, not what its stages see")
    return [stage["num_chs"] for stage in encoder.feature_info][:-1]


def _resnet(design: ResNet, options: dict) -> nn.Module:
    """A ResNet whose strides are where its description has them; timm makes them in the 3 x 3 convolutions."""
    encoder = timm.create_model("resnet50", **options)
    if design.stride_in == "1x1":
        for stage in (encoder.layer2, encoder.layer3, encoder.layer4):
            stage[0].conv1.stride, stage[0].conv2.stride = stage[0].conv2.stride, stage[0].conv1.stride
    return encoder
