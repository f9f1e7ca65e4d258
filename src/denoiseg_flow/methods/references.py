"""Publications of the methods, data and software that a study uses."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Citation:
    """A publication and its use in this project."""

    text: str
    url: str
    use: str


CITATIONS = (
    Citation(
        "Buchholz, Prakash, Schmidt, Krull, Jug: DenoiSeg: joint denoising and segmentation. "
        "ECCV Workshops 2020.",
        "https://arxiv.org/abs/2005.02987",
        "the joint network and loss, the comparison tables, and the definitions of AP and SEG",
    ),
    Citation(
        "Krull, Buchholz, Jug: Noise2Void - learning denoising from single noisy images. "
        "CVPR 2019.",
        "https://arxiv.org/abs/1811.10980",
        "blind-spot training on noisy images alone",
    ),
    Citation(
        "Höck, Buchholz, Brachmann, Jug, Freytag: N2V2 - fixing Noise2Void checkerboard artifacts "
        "with modified sampling strategies and a tweaked network architecture. ECCV Workshops "
        "2022.",
        "https://arxiv.org/abs/2211.08512",
        "replacement of masked pixels by medians, and the U-Net with blur pooling",
    ),
    Citation(
        "Broaddus, Krull, Weigert, Schmidt, Myers: Removing structured noise with self-supervised "
        "blind-spot networks. ISBI 2020.",
        "https://doi.org/10.1109/ISBI45749.2020.9098336",
        "masks for correlated noise",
    ),
    Citation(
        "Batson, Royer: Noise2Self: blind denoising by self-supervision. ICML 2019.",
        "https://arxiv.org/abs/1901.11365",
        "grids of masked pixels, J-invariant prediction and the calibration of classical denoisers",
    ),
    Citation(
        "Lehtinen et al.: Noise2Noise: learning image restoration without clean data. ICML 2018.",
        "https://arxiv.org/abs/1803.04189",
        "training with a second noisy copy as the target",
    ),
    Citation(
        "Gondara: Medical image denoising using convolutional denoising autoencoders. ICDM "
        "Workshops 2016.",
        "https://arxiv.org/abs/1608.04667",
        "the denoising autoencoder",
    ),
    Citation(
        "Yang, Zhang, Chen, Zhang, Chen: Suggestive annotation: a deep active learning framework "
        "for biomedical image segmentation. MICCAI 2017.",
        "https://arxiv.org/abs/1706.04737",
        "the choice of images to annotate next",
    ),
    Citation(
        "Otsu: A threshold selection method from gray-level histograms. IEEE Transactions on "
        "Systems, Man, and Cybernetics 9, 1979.",
        "https://doi.org/10.1109/TSMC.1979.4310076",
        "segmentation by a threshold",
    ),
    Citation(
        "Berg et al.: ilastik: interactive machine learning for (bio)image analysis. Nature "
        "Methods 16, 2019.",
        "https://doi.org/10.1038/s41592-019-0582-9",
        "the classification of pixels by filters and a random forest",
    ),
    Citation(
        "Ronneberger, Fischer, Brox: U-Net: convolutional networks for biomedical image "
        "segmentation. MICCAI 2015.",
        "https://arxiv.org/abs/1505.04597",
        "the network architecture",
    ),
    Citation(
        "Caicedo et al.: Nucleus segmentation across imaging experiments: the 2018 Data Science "
        "Bowl. Nature Methods 16, 2019.",
        "https://doi.org/10.1038/s41592-019-0612-7",
        "the DSB2018 nuclei images and annotations, if this study uses them",
    ),
    Citation(
        "Mölder et al.: Sustainable data analysis with Snakemake. F1000Research 10:33, 2021.",
        "https://doi.org/10.12688/f1000research.29032.2",
        "the workflow engine that runs all steps",
    ),
)
