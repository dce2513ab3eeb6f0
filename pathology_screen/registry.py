"""The one list of methods, for commands, docs and tests; imports neither torch nor MONAI."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Method:
    """A method of unsupervised pathology screening.

    Attributes:
        name: of the method and its bundle.
        title: for people.
        paper: where it was published.
        network: dotted path of its network's class.
        parameters: number of trained parameters by profile of the bundle; none for a control, which
            learns nothing and has no bundle.
        reconstructs: whether the network paints a pseudo-healthy image.
    """

    name: str
    title: str
    paper: str
    network: str
    parameters: Mapping[str, int] = field(default_factory=dict)
    reconstructs: bool = True

    @property
    def is_control(self) -> bool:
        return not self.parameters


_NETWORKS = "pathology_screen.networks"

METHODS = {
    method.name: method
    for method in (
        Method(
            name="ra",
            title="Reversed Autoencoder",
            paper=(
                "Bercea, Wiestler, Rueckert, Schnabel: Generalizing Unsupervised Anomaly Detection "
                "(MIDL 2023)"
            ),
            network=f"{_NETWORKS}.introspective_vae.IntrospectiveVAE",
            parameters={"compact": 1_844_225, "paper": 29_430_785},
        ),
        Method(
            name="si_vae",
            title="Soft-IntroVAE",
            paper="Daniel, Tamar: Soft-IntroVAE (CVPR 2021)",
            network=f"{_NETWORKS}.introspective_vae.IntrospectiveVAE",
            parameters={"compact": 1_844_225, "paper": 29_430_785},
        ),
        Method(
            name="vae",
            title="Variational autoencoder",
            paper=(
                "Zimmerer et al.: Unsupervised Anomaly Localization Using Variational "
                "Auto-Encoders (MICCAI 2019)"
            ),
            network=f"{_NETWORKS}.vae.VAE",
            parameters={"compact": 1_655_296, "paper": 8_995_328},
        ),
        Method(
            name="ae_s",
            title="Spatial autoencoder",
            paper=(
                "Baur et al.: Autoencoders for Unsupervised Anomaly Segmentation in Brain MR "
                "Images (MedIA 2021)"
            ),
            network=f"{_NETWORKS}.spatial_ae.SpatialAutoencoder",
            parameters={"compact": 1_359_457, "paper": 1_359_457},
        ),
        Method(
            name="dae",
            title="Denoising autoencoder",
            paper=(
                "Kascenas et al.: Denoising Autoencoders for Unsupervised Anomaly Detection in "
                "Brain MRI (MIDL 2022)"
            ),
            network=f"{_NETWORKS}.denoising_unet.DenoisingUNet",
            parameters={"compact": 483_153, "paper": 7_701_825},
        ),
        Method(
            name="mkd",
            title="Multiresolution knowledge distillation",
            paper=(
                "Salehi et al.: Multiresolution Knowledge Distillation for Anomaly Detection (CVPR "
                "2021)"
            ),
            network=f"{_NETWORKS}.distillation.MultiresolutionDistillation",
            parameters={"compact": 343_984, "paper": 343_984},
            reconstructs=False,
        ),
        Method(
            name="template",
            title="Control: difference to the mean of the training slices",
            paper="no method; Meissen et al. (BrainLes 2021) ask for such controls",
            network=f"{_NETWORKS}.controls.TrainingMean",
        ),
        Method(
            name="principal_components",
            title="Control: projection on the principal components of the training slices",
            paper="no method; the best linear autoencoder",
            network=f"{_NETWORKS}.controls.PrincipalComponents",
        ),
        Method(
            name="intensity",
            title="Control: the slice's own equalised intensity",
            paper=(
                "Meissen et al.: Challenging Current Semi-supervised Anomaly Segmentation Methods "
                "(BrainLes 2021)"
            ),
            network=f"{_NETWORKS}.controls.ZeroReconstruction",
            reconstructs=False,
        ),
    )
}
