"""Image subjects: small labelled images, and a feed-forward classifier whose hidden layer can be edited."""

from conceptatlas.subjects.images.classifier import SITE, FeedForward, ImageSubject, Kind, train_classifier
from conceptatlas.subjects.images.data import ImageData, load_images

__all__ = ["SITE", "FeedForward", "ImageData", "ImageSubject", "Kind", "load_images", "train_classifier"]
