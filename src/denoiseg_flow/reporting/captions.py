"""Titles and captions of tables and figures, for the report page and Snakemake's own report."""

#: Title and caption of each kind of figure.
FIGURES = {
    "label_curves": (
        "Quality by number of annotated images",
        "AP and SEG of the segmentation; PSNR of methods that segment and denoise. Points: mean "
        "over seeds; bands and bars: ± standard error of the mean. Horizontal lines: methods that "
        "use no annotated images.",
    ),
    "denoising_levels": (
        "Denoising quality by noise level",
        "PSNR on the test images, with the range of the clean image. Dashed line: noisy input. "
        "Points: mean over seeds; bars: ± standard error of the mean.",
    ),
    "training_curves": (
        "Training curves",
        "One line per run. Losses of methods with different training targets are not comparable.",
    ),
    "training_sizes": (
        "Denoising quality by number of training images",
        "SSIM and PSNR on the same test images. Points: mean over seeds; bands: ± standard error "
        "of the mean.",
    ),
    "calibration": (
        "Calibration without clean images",
        "Mean squared error of classical denoisers as a function of their parameter, on validation "
        "images. Dots: minima. Solid: error against the noisy image, which needs no clean image. "
        "Dashed: error against the clean image. A J-invariant denoiser (donut median) does not "
        "read the pixel that it predicts: both of its minima are at the same parameter, and the "
        "errors differ by the variance of the noise (arrow with its length). Other denoisers are "
        "evaluated at masked pixels (dotted).",
    ),
    "precision": (
        "Precision of objects by their confidence",
        "The share of predicted objects that are correct (IoU > 0.5 with an annotated one) in "
        "groups of similar confidence, made to rise by isotonic regression, with 95% intervals "
        "that allow for the likeness of objects of an image. It is measured on the validation or "
        "cross-validated images of the first seed, which the network was not trained on but its "
        "threshold was chosen on. Text: numbers of these objects and images. Dotted: few objects, "
        "a rough estimate.",
    ),
    "panel": (
        "Predictions side by side",
        "The test image with the median score over the methods shown, for the first number of "
        "annotated images and the first seed of the study. Matching objects (IoU > 0.5) have the "
        "same colour.",
    ),
    "diagnostics": (
        "Residuals and calibration",
        "Residual (of denoised images): autocorrelation of noisy minus denoised, mean over all "
        "predicted images; dashed: autocorrelation of the noise in flat parts. The two agree if "
        "only noise was removed. Calibration (of class probabilities): the fraction of foreground "
        "pixels by predicted foreground probability, on annotated images that were not used for "
        "training; dashed: perfect calibration.",
    ),
    "residuals": (
        "Residuals of single images",
        "Images with the most oversmoothed or hallucinated windows, followed by the images with "
        "the worst scores. The residual (noisy minus denoised) should look like noise. Vermilion "
        "frames: the residual contains structure of the image (oversmoothed). Yellow frames: the "
        "denoised image shows structure that is not in the noisy image (hallucinated).",
    ),
    "suggestions": (
        "What to annotate next",
        "Images to annotate next, in this order: of the third with the lowest confidence (and of "
        "up to eight images), each time the one that represents most of the images that none "
        "before it represents. Orange: the network is uncertain.",
    ),
}

#: Title and caption of each table, with the names of what its results fill in.
TABLES = {
    "segmentation": (
        "Segmentation",
        "Segmentation quality by method and number of annotated training images (columns). "
        "{metrics} {noise_levels} {error_bar} Bold: best in each column.",
    ),
    "denoising": (
        "Denoising",
        "Denoising quality by method and noise level (columns), compared with clean images, or "
        "where the metric says so, with the mean of other acquisitions of the same field. "
        "{metrics} {noise_levels} {noise_sigmas}{error_bar} Bold: best in each column, except for "
        "the noisy input (which is the same for all seeds).",
    ),
    "self_supervision": (
        "Self-supervision",
        "Prediction error at masked pixels. The self-supervised loss is the mean squared error "
        "against the noisy image, the true error that against the clean image. If the noise is "
        "independent between pixels and has mean zero, the two differ by the variance of the "
        "noise, so the loss ranks methods without clean images. With clean images, the table shows "
        "methods that mask the pixels of a grid: J-invariant, each pixel predicted while masked, "
        "and in a single pass, in which the network sees all pixels. Without clean images, the "
        "loss is measured for every denoiser at a quarter of the pixels, replaced by the mean of "
        "their neighbours. {noise_levels} {error_bar}",
    ),
    "paired": (
        "Paired differences from {reference}",
        "Each method minus {reference}, by number of annotated training images (columns), paired "
        "by seed and image. {metrics} Brackets: 95% confidence interval for new trainings and new "
        "images ({seeds}; none with one seed, or with fewer than {min_images} images). Bold: "
        "significantly different from {reference}, with p-values adjusted for the number of "
        "methods in the column (Holm).",
    ),
    "paper": (
        "In the layout of the {paper} paper",
        "Denoising quality of methods without annotated images, and of the noisy input (the same "
        "for all seeds). {metrics} {noise_levels} {error_bar} {sources}",
    ),
    "published": (
        "Published numbers",
        "Our means and published means, by number of annotated training images (columns). "
        "{metrics} {error_bar} Published numbers have ± if the source gives it. Oracle: alpha was "
        "chosen on the test set, so the comparison is not fair. Sources: {sources}.",
    ),
    "costs": (
        "Costs",
        "Total wall-clock time of the jobs, their median, and the peak resident memory of a job "
        "(main memory, not GPU memory), as measured by Snakemake.{lost}",
    ),
}
