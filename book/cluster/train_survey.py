"""Train a network on a whole survey, on as many devices as torchrun or SLURM gives.

    torchrun --nproc_per_node=4 train_survey.py catalog.parquet runs/survey
"""
import argparse

from zoobook import catalogs, trees
from zoobook.images import ImageStore
from zoobook.pytorch import train

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("catalog", help="id_str, file_loc and the votes")
parser.add_argument("out", help="folder of the run")
parser.add_argument("--tree", default="decals_dr5")
parser.add_argument("--architecture", default="efficientnet_b0")
parser.add_argument("--image-size", type=int, default=224)
parser.add_argument("--batch-size", type=int, default=512, help="over all devices")
parser.add_argument("--epochs", type=int, default=100)
parser.add_argument("--nodes", type=int, default=1, help="machines")

if __name__ == "__main__":
    args = parser.parse_args()
    tree = trees.load(args.tree)
    catalog = catalogs.split(catalogs.read(args.catalog, tree))
    # Every process asks for the store; one makes it, the others wait.
    store = ImageStore.build(catalog, f"{args.out}/images.arrow", args.image_size)
    train(
        store, catalog, tree, architecture=args.architecture, epochs=args.epochs,
        batch_size=args.batch_size, num_nodes=args.nodes, out_dir=args.out,
    )
