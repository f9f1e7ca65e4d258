"""Titles and captions of figures, for the report page and for Snakemake's own report."""

#: Title and caption of each kind of figure.
FIGURES = {
    "label_curves": (
        "Segmentation quality by number of annotated images",
        "Points: mean over seeds; bands and bars: ± standard error of the mean.",
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
    "panel": (
        "Predictions side by side",
        "The test image with the median score over the methods shown, for the first number of "
        "annotated images and the first seed of the study. Matching objects (IoU > 0.5) have the "
        "same colour.",
    ),
    "diagnostics": (
        "Residuals and calibration",
        "Left: autocorrelation of the residual (noisy minus denoised), mean over all predicted "
        "images; dashed: autocorrelation of the noise in flat parts. The two agree if only noise "
        "was removed. Right: reliability diagram, the fraction of foreground pixels by predicted "
        "foreground probability, on annotated images that were not used for training; dashed: "
        "perfect calibration.",
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
        "Images to annotate next, in this order. Orange: the model is uncertain. Together, these "
        "images represent most of the images on which it is uncertain.",
    ),
}
