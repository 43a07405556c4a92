"""How a network goes on from a trained one: what it takes over, what is frozen, which layers learn more slowly."""

import numpy as np

from zoobook.images import ImageStore
from zoobook.images.views import share_seen
from zoobook.learning.architectures import BOTH
from zoobook.learning.batches import GalaxyBatches
from zoobook.learning.engine import Twin
from zoobook.learning.models import GalaxyNetwork
from zoobook.learning.prediction import features_of
from zoobook.learning.tasks import Task, Votes, linear_answer
from zoobook.trees import DecisionTree
from zoobook.votes import LOWEST, fit_constant

DROPOUT = 0.2  # of new networks
TOP_SHARE = 0.25  # unfreeze="top": the last stages, until they hold this share of the encoder's weights
ENCODER_LR_SCALE = 0.1  # to a label: the last stage of the encoder learns this much more slowly than the head
LAYER_DECAY = 0.7  # and each stage further from the head this much more slowly than the one above it


def new_spec(spec: dict, task: Task) -> dict:
    """What a network is made of that goes on from a trained one: its encoder, and a linear head for the task.

    For votes, dropout and lowest concentration are the trained model's where it had such a head.
    """
    votes, before = isinstance(task.kind, Votes), spec["head"] or {}
    usual = not votes or before.get("hidden")  # hidden layers have the strong dropout of few labels
    lowest = {"lowest": before["lowest"]} if votes and "lowest" in before else {}
    return {
        **spec,
        "tree": task.kind.tree.to_dict() if votes else None,
        "head": {**task.kind.head, **lowest, "hidden": []},
        "dropout": DROPOUT if usual else spec["dropout"],
    }


def new_model(twin: Twin, spec: dict, task: Task, trained: GalaxyNetwork | None = None) -> GalaxyNetwork:
    """A network with this ``spec``, to be trained; it begins where the trained one, if there is one, has arrived."""
    model = twin.models.GalaxyModel(spec)
    arrays = model.to_arrays()
    if isinstance(task.kind, Votes):
        arrays = init_output_bias(arrays, fit_constant(task.targets["train"], task.kind.tree), *model.kind.scale)
    if trained is not None:
        arrays = take_over(trained.spec, trained.to_arrays(), spec, arrays)
    model.set_arrays(arrays)
    return model


def check_image_size(twin: Twin, model: GalaxyNetwork, image_size: int) -> None:
    """Refuse another size of images for a trained model whose weights do not fit it, such as a transformer's."""
    spec = model.spec
    if spec["architecture"] in BOTH or spec["image_size"] == image_size:
        return
    try:
        twin.models.from_arrays({**spec, "image_size": image_size}, model.to_arrays())
    except ValueError:
        own = spec["image_size"]
        raise ValueError(
            f"image_size is {image_size}, but the given {spec['architecture']} was trained with {own}, and its weights "
            f"fit no other size. Pass image_size={own}; the stored images may have any size."
        ) from None


def init_output_bias(
    arrays: dict[str, np.ndarray], constant: np.ndarray, lowest: float, factor: float
) -> dict[str, np.ndarray]:
    """Let the untrained head, lowest + factor sigmoid(x), answer much the same for every galaxy: a constant [A]."""
    share = np.clip((constant - lowest) / factor, 1e-3, 1 - 1e-3)
    weight = arrays["head.output.weight"]
    bias = np.log(share / (1 - share)).astype(weight.dtype)
    return arrays | {"head.output.weight": weight * weight.dtype.type(0.1), "head.output.bias": bias}


def take_over(spec: dict, arrays: dict, new_spec: dict, new_arrays: dict) -> dict:
    """The weights, by name, with which a network begins that goes on from a trained one.

    Taken over are the encoder with its batch statistics and, where both models have a linear head for votes with the
    same lowest concentration, the answers to each question that both their trees have with the same answers. For the
    rest, ``new_arrays`` stays.
    """
    begun = new_arrays | {name: array for name, array in arrays.items() if name.startswith("encoder.")}
    linear = {"kind": Votes.name, "hidden": []}
    heads = [one["head"] or {} for one in (spec, new_spec)]
    same_range = len({head.get("lowest", LOWEST) for head in heads}) == 1  # else the same logits are other answers
    if same_range and all(head.items() >= linear.items() for head in heads):
        new, old = DecisionTree.from_dict(new_spec["tree"]).shared_with(DecisionTree.from_dict(spec["tree"]))
        for name in ("head.output.weight", "head.output.bias"):
            begun[name] = new_arrays[name].copy()
            begun[name][new] = arrays[name][old]
    return begun


def freeze_layers(twin: Twin, model: GalaxyNetwork, unfreeze: str) -> dict[str, float]:
    """Freeze the stages of an encoder that are not to learn, see ``unfreeze`` of ``finetune``.

    Returns:
        dict: for the encoder's weights, by name, the share of the learning rate, which falls with the distance from the
        head.
    """
    stages, arrays = twin.models.stages(model), model.to_arrays()
    sizes = [sum(arrays[name].size for name in stage) for stage in stages]
    lr_scales, frozen, held = {}, set(), 0
    for depth, (stage, size) in enumerate(zip(reversed(stages), reversed(sizes), strict=True)):
        if not (unfreeze == "all" or (unfreeze == "top" and held < TOP_SHARE * sum(sizes))):
            frozen |= set(stage)
        held += size
        lr_scales |= {name: ENCODER_LR_SCALE * LAYER_DECAY**depth for name in stage}
    twin.models.freeze(model, frozen)
    return lr_scales


def freeze_batchnorm(twin: Twin, model: GalaxyNetwork) -> None:
    """Let the encoder's batch normalisation stay as it is, weights and statistics."""
    names = [name for name in model.to_arrays() if name.startswith("encoder.")]
    norms = tuple(name.removesuffix("running_mean") for name in names if name.endswith(".running_mean"))
    twin.models.freeze(model, {name for name in names if name.startswith(norms)})


def start_head(twin: Twin, model: GalaxyNetwork, store: ImageStore, task: Task, devices: str | int) -> bool:
    """Let the head of a label begin with the linear answer to what the encoder finds in the training galaxies.

    Returns whether the encoder was untrained, so that it has nothing to lose.
    """
    spec, rows, share = model.spec, task.rows["train"], share_seen(model.spec, store)
    images, views = next(iter(twin.engine.GalaxyLoader(GalaxyBatches(store.pixels, rows, 128, share=share))))
    seen = twin.models.apply_view(images, views, spec["channels"], spec["image_size"], share)
    untrained = twin.models.initialize_batchnorm_stats(model, seen)
    features = features_of(twin, model, store, rows, devices)
    weights, bias = linear_answer(features, task.targets["train"], task.kind)
    head = {"head.output.weight": weights, "head.output.bias": bias}
    model.set_arrays(model.to_arrays() | head)
    return untrained
