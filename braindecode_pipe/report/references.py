"""References by their short names, sentences that cite them, and which step cites which."""

from __future__ import annotations

import re
from collections.abc import Iterable

REFERENCES = {
    "Gramfort 2013": "Gramfort A, et al. (2013). MEG and EEG data analysis with MNE-Python. "
    "Frontiers in Neuroscience 7:267. doi:10.3389/fnins.2013.00267",
    "Appelhoff 2019": "Appelhoff S, et al. (2019). MNE-BIDS: organizing electrophysiological data "
    "into the BIDS format and facilitating their analysis. Journal of Open Source Software "
    "4(44):1896. doi:10.21105/joss.01896",
    "Abraham 2014": "Abraham A, et al. (2014). Machine learning for neuroimaging with "
    "scikit-learn. Frontiers in Neuroinformatics 8:14. doi:10.3389/fninf.2014.00014",
    "Gorgolewski 2016": "Gorgolewski KJ, et al. (2016). The brain imaging data structure, a format "
    "for organizing and describing outputs of neuroimaging experiments. Scientific Data 3:160044. "
    "doi:10.1038/sdata.2016.44",
    "Esteban 2019": "Esteban O, et al. (2019). fMRIPrep: a robust preprocessing pipeline for "
    "functional MRI. Nature Methods 16:111-116. doi:10.1038/s41592-018-0235-4",
    "Dupré la Tour 2022": "Dupré la Tour T, et al. (2022). Feature-space selection with banded "
    "ridge regression. NeuroImage 264:119728. doi:10.1016/j.neuroimage.2022.119728",
    "Défossez 2023": "Défossez A, et al. (2023). Decoding speech perception from non-invasive "
    "brain recordings. Nature Machine Intelligence 5:1097-1107. doi:10.1038/s42256-023-00714-5",
    "Radford 2021": "Radford A, et al. (2021). Learning transferable visual models from natural "
    "language supervision. ICML, PMLR 139:8748-8763.",
    "Benchetrit 2024": "Benchetrit Y, Banville H, King J-R (2024). Brain decoding: toward "
    "real-time reconstruction of visual perception. ICLR. arXiv:2310.19812.",
    "Song 2024": "Song Y, et al. (2024). Decoding natural images from EEG for object recognition. "
    "ICLR. arXiv:2308.13234.",
    "Li 2024": "Li D, et al. (2024). Visual decoding and reconstruction via EEG embeddings with "
    "guided diffusion. NeurIPS. arXiv:2403.07721.",
    "Lawhern 2018": "Lawhern VJ, et al. (2018). EEGNet: a compact convolutional neural network for "
    "EEG-based brain-computer interfaces. Journal of Neural Engineering 15(5):056013. "
    "doi:10.1088/1741-2552/aace8c",
    "Scotti 2024": "Scotti PS, et al. (2024). MindEye2: shared-subject models enable fMRI-to-image "
    "with 1 hour of data. ICML. arXiv:2403.11207.",
    "Zhai 2023": "Zhai X, et al. (2023). Sigmoid loss for language image pre-training. ICCV. "
    "arXiv:2303.15343.",
    "Haufe 2014": "Haufe S, et al. (2014). On the interpretation of weight vectors of linear "
    "models in multivariate neuroimaging. NeuroImage 87:96-110. "
    "doi:10.1016/j.neuroimage.2013.10.067",
    "Reimers 2019": "Reimers N, Gurevych I (2019). Sentence-BERT: sentence embeddings using "
    "Siamese BERT-networks. EMNLP-IJCNLP, 3982-3992. doi:10.18653/v1/D19-1410",
    "Wang 2020": "Wang W, et al. (2020). MiniLM: deep self-attention distillation for "
    "task-agnostic compression of pre-trained transformers. NeurIPS 33:5776-5788.",
    "Tan 2019": "Tan M, Le QV (2019). EfficientNet: rethinking model scaling for convolutional "
    "neural networks. ICML, PMLR 97:6105-6114.",
    "Ojala 2010": "Ojala M, Garriga GC (2010). Permutation tests for studying classifier "
    "performance. Journal of Machine Learning Research 11:1833-1863.",
    "Nichols 2002": "Nichols TE, Holmes AP (2002). Nonparametric permutation tests for functional "
    "neuroimaging: a primer with examples. Human Brain Mapping 15(1):1-25. doi:10.1002/hbm.1058",
    "Ablin 2018": "Ablin P, Cardoso J-F, Gramfort A (2018). Faster independent component analysis "
    "by preconditioning with Hessian approximations. IEEE Transactions on Signal Processing "
    "66(15):4040-4049. doi:10.1109/TSP.2018.2844203",
    "Hyvärinen 1999": "Hyvärinen A (1999). Fast and robust fixed-point algorithms for independent "
    "component analysis. IEEE Transactions on Neural Networks 10(3):626-634. doi:10.1109/72.761722",
    "Bell 1995": "Bell AJ, Sejnowski TJ (1995). An information-maximization approach to blind "
    "separation and blind deconvolution. Neural Computation 7(6):1129-1159. "
    "doi:10.1162/neco.1995.7.6.1129",
    "Pion-Tonachini 2019": "Pion-Tonachini L, Kreutz-Delgado K, Makeig S (2019). ICLabel: an "
    "automated electroencephalographic independent component classifier, dataset, and website. "
    "NeuroImage 198:181-197. doi:10.1016/j.neuroimage.2019.05.026",
    "Li 2022": "Li A, et al. (2022). MNE-ICALabel: automatically annotating ICA components with "
    "ICLabel in Python. Journal of Open Source Software 7(76):4484. doi:10.21105/joss.04484",
    "Bigdely-Shamlo 2015": "Bigdely-Shamlo N, et al. (2015). The PREP pipeline: standardized "
    "preprocessing for large-scale EEG analysis. Frontiers in Neuroinformatics 9:16. "
    "doi:10.3389/fninf.2015.00016",
    "Taulu 2005": "Taulu S, Kajola M (2005). Presentation of electromagnetic multichannel data: "
    "the signal space separation method. Journal of Applied Physics 97:124905. "
    "doi:10.1063/1.1935742",
    "Taulu 2006": "Taulu S, Simola J (2006). Spatiotemporal signal space separation method for "
    "rejecting nearby interference in MEG measurements. Physics in Medicine and Biology "
    "51(7):1759-1768. doi:10.1088/0031-9155/51/7/008",
    "Tierney 2021": "Tierney TM, et al. (2021). Modelling optically pumped magnetometer "
    "interference in MEG as a spatially homogeneous magnetic field. NeuroImage 244:118484. "
    "doi:10.1016/j.neuroimage.2021.118484",
    "Vrba 2001": "Vrba J, Robinson SE (2001). Signal processing in magnetoencephalography. Methods "
    "25(2):249-271. doi:10.1006/meth.2001.1238",
    "Uusitalo 1997": "Uusitalo MA, Ilmoniemi RJ (1997). Signal-space projection method for "
    "separating MEG or EEG into components. Medical and Biological Engineering and Computing "
    "35(2):135-140. doi:10.1007/BF02534144",
    "Yao 2001": "Yao D (2001). A method to standardize a reference of scalp EEG recordings to a "
    "point at infinity. Physiological Measurement 22(4):693-711. doi:10.1088/0967-3334/22/4/305",
    "Perrin 1989": "Perrin F, et al. (1989). Spherical splines for scalp potential and current "
    "density mapping. Electroencephalography and Clinical Neurophysiology 72(2):184-187. "
    "doi:10.1016/0013-4694(89)90180-6",
    "de Cheveigné 2020": "de Cheveigné A (2020). ZapLine: a simple and effective method to remove "
    "power line artifacts. NeuroImage 207:116356. doi:10.1016/j.neuroimage.2019.116356",
    "Jas 2017": "Jas M, et al. (2017). Autoreject: automated artifact rejection for MEG and EEG "
    "data. NeuroImage 159:417-429. doi:10.1016/j.neuroimage.2017.06.030",
    "Guggenmos 2018": "Guggenmos M, Sterzer P, Cichy RM (2018). Multivariate pattern analysis for "
    "MEG: a comparison of dissimilarity measures. NeuroImage 173:434-447. "
    "doi:10.1016/j.neuroimage.2018.02.044",
    "Behzadi 2007": "Behzadi Y, et al. (2007). A component based noise correction method (CompCor) "
    "for BOLD and perfusion based fMRI. NeuroImage 37(1):90-101. "
    "doi:10.1016/j.neuroimage.2007.04.042",
    "Pruim 2015": "Pruim RHR, et al. (2015). ICA-AROMA: a robust ICA-based strategy for removing "
    "motion artifacts from fMRI data. NeuroImage 112:267-277. "
    "doi:10.1016/j.neuroimage.2015.02.064",
    "Power 2012": "Power JD, et al. (2012). Spurious but systematic correlations in functional "
    "connectivity MRI networks arise from subject motion. NeuroImage 59(3):2142-2154. "
    "doi:10.1016/j.neuroimage.2011.10.018",
    "Mumford 2012": "Mumford JA, et al. (2012). Deconvolving BOLD activation in event-related "
    "designs for multivoxel pattern classification analyses. NeuroImage 59(3):2636-2643. "
    "doi:10.1016/j.neuroimage.2011.08.076",
    "Prince 2022": "Prince JS, et al. (2022). Improving the accuracy of single-trial fMRI response "
    "estimates using GLMsingle. eLife 11:e77599. doi:10.7554/eLife.77599",
    "Rokem 2020": "Rokem A, Kay K (2020). Fractional ridge regression: a fast, interpretable "
    "reparameterization of ridge regression. GigaScience 9(12):giaa133. "
    "doi:10.1093/gigascience/giaa133",
}
# What the text of a step that ran says, and the work that it rests on.
CITED_BY_STEPS = (
    (r"\bpicard\b", ("Ablin 2018",)),
    (r"\bfastica\b", ("Hyvärinen 1999",)),
    (r"\binfomax\b", ("Bell 1995",)),
    (r"\bic-?label\b", ("Pion-Tonachini 2019", "Li 2022")),
    (r"\b(py)?prep\b|\bransac\b", ("Bigdely-Shamlo 2015",)),
    (r"\bmaxwell\b|\bt?sss\b|signal.space separation", ("Taulu 2005",)),
    (r"\btsss\b|temporal(ly)? (extension|extended)", ("Taulu 2006",)),
    (r"homogeneous field|\bhfc\b", ("Tierney 2021",)),
    (r"gradient compensation|\bctf compensation", ("Vrba 2001",)),
    (r"\bssp\b|signal.space projection|\bprojectors?\b", ("Uusitalo 1997",)),
    (r"\bREST\b", ("Yao 2001",)),
    (r"\binterpolated bad channels|laplacian|spherical spline", ("Perrin 1989",)),
    (r"zapline", ("de Cheveigné 2020",)),
    (r"autoreject", ("Jas 2017",)),
    (r"\bmvnn\b|noise normali[sz]ation", ("Guggenmos 2018",)),
    (r"compcor", ("Behzadi 2007",)),
    (r"aroma", ("Pruim 2015",)),
    (r"scrub|framewise displacement", ("Power 2012",)),
    (r"\bLSS\b", ("Mumford 2012",)),
    (r"glmsingle|glmdenoise", ("Prince 2022",)),
    (r"fractional ridge|ridge fraction", ("Rokem 2020",)),
)
CASE_MATTERS = (r"\bREST\b", r"\bLSS\b")


def cited_by(steps: Iterable[str]) -> list[str]:
    """Short names of the works that the steps rest on, in the order of the steps.

    Steps that say what was not done ("no filter: ...") rest on nothing.
    """
    found: list[str] = []
    for step in steps:
        if re.match(r"(no|not)\b", step, re.IGNORECASE):
            continue
        for pattern, keys in CITED_BY_STEPS:
            flags = 0 if pattern in CASE_MATTERS else re.IGNORECASE
            if re.search(pattern, step, flags):
                found += [key for key in keys if key not in found]
    return found


class Cited:
    """Sentences, and the references that they cite in order of first use."""

    def __init__(self) -> None:
        self.sentences: list[str] = []
        self.keys: list[str] = []

    def say(self, text: str, *keys: str) -> None:
        self.keys += [key for key in keys if key not in self.keys]
        if keys:
            text = f"{text.removesuffix('.')} ({'; '.join(keys)})."
        self.sentences.append(text)
