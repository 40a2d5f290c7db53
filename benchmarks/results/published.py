"""The published accuracies that the results are compared with."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Published:
    """Test accuracies in percent; None where none was published.

    Attributes:
        paper: Kag & Saligrama, CVPR 2022, tables 2 and 3.
        article: "Constraining Neural Network activations with Partial Differential Equations", the TensorFlow
            reproduction that this project began with. article_confusion: its share of 3s and 5s confused, in percent.
    """

    paper: float | None
    article: float | None
    article_confusion: float | None = None


NOTHING = Published(None, None)

PUBLISHED: dict[str, Published] = {
    "mnist-cnn": Published(92.01, 91.5, 2.53),
    "mnist-residual": Published(92.53, 93.39, 2.29),
    "mnist-pde": Published(95.03, 93.96, 2.03),
    "cifar10-resnet32": Published(92.53, 90.9),
    "cifar10-global": Published(91.93, 88.59),
    "cifar10-global-constant-d": Published(None, 88.60),
    "cifar10-global-no-advection": Published(None, 87.86),
    "cifar10-global-no-diffusion": Published(None, 88.03),
}

# The networks whose confusion matrices the article shows.
WITH_CONFUSION = [preset for preset, published in PUBLISHED.items() if published.article_confusion is not None]
