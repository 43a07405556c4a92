"""Images of galaxies: reading them, keeping them, and the views of them that a model sees."""
from zoobook.images.checks import BadImage
from zoobook.images.decoding import read_image
from zoobook.images.store import ImageStore

__all__ = ["BadImage", "ImageStore", "read_image"]
