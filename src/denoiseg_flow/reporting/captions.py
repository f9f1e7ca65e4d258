"""What stands above and below a figure, in the page of a study and in Snakemake's own report."""

#: Title and caption of each kind of figure.
FIGURES = {
    "label_curves": (
        "Segmentation against annotated images",
        "Points are means over seeds, bands and bars ± the standard error of the mean.",
    ),
    "denoising_levels": (
        "Denoising by noise level",
        "PSNR against the clean test images, with their own range; the dashed line is the noisy "
        "input. Points are means over seeds, bars ± the standard error of the mean.",
    ),
    "training_curves": (
        "Training",
        "One thin line per run. Losses of methods with different targets are not on one scale.",
    ),
    "training_sizes": (
        "Denoising against the number of training images",
        "SSIM and PSNR on the same test images. Points are means over seeds, bands ± the standard "
        "error of the mean.",
    ),
    "calibration": (
        "Calibration without clean images",
        "Mean squared error of classical denoisers against their parameter, on validation images, "
        "minima marked: against the noisy image, which can be measured without a clean one, and "
        "against the clean image. A denoiser that does not read the pixel it predicts (donut "
        "median) has both minima at the same place, apart by the variance of the noise; others are "
        "judged at hidden pixels (dotted). The number beside an arrow is its length.",
    ),
    "panel": (
        "Results side by side",
        "The test image that is the median in quality over the methods shown, with the first label "
        "count and the first seed of the study. Matching objects (IoU > 0.5) share a colour.",
    ),
    "diagnostics": (
        "What was removed, and how right the probabilities are",
        "Left: correlation of what was removed with itself, mean over all predicted images; "
        "dashed, that of the noise in flat parts. If only noise was removed, both agree. Right: of "
        "the pixels that are said to be foreground with a probability, the share that is, in "
        "annotated images that the network was not trained on; dashed, as it should be.",
    ),
    "residuals": (
        "What was removed, image by image",
        "Images of which the most was smoothed away or invented, or else the worst. What was "
        "removed (noisy minus denoised) should look like noise: windows in which it holds "
        "structure of the image are framed with vermilion, windows in which the denoised image "
        "shows structure that the noisy one does not have with yellow.",
    ),
    "suggestions": (
        "What to annotate next",
        "The images to annotate next, in this order, with orange where the network is unsure. "
        "Together they stand for most of the images that it is unsure about.",
    ),
}
