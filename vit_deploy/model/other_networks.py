"""Well-known networks that are no Vision Transformer of ours, by how their names begin.

The names are those of timm and torchvision. Those of timm's transformers stand one by one in
``architectures.json``; this is for the many that are further away, and for the ones yet to come.
"""

from __future__ import annotations

import re

_STAGES = "stages of convolutions in place of blocks of attention"
_WINDOWS = "shifted windows and merged patches"
_MIXED = "stages of convolutions and attention, of different widths"
_MLPS = "MLPs across patches in place of attention"
_STATE_SPACE = "state-space layers or recurrences in place of attention"
_BOXES = "heads for boxes, masks or key points on a convolutional network"
_VIDEO = "convolutions or windows over several frames"

BEGINNINGS: dict[str, str] = {
    name: missing
    for missing, names in {
        _STAGES: "adv_inception alexnet bat_resnext botnet caformer convformer convmixer convnext cs3 "
        "cspdarknet  cspnext cspresne darknet densenet dla dm_nfnet dpn eca_ ecaresne "
        "efficientnet ens_adv ese_vovnet fasternet  fbnet gc_efficientnet gcresne gernet ghostnet "
        "gluon_ googlenet halo2botnet halonet haloregnet hardcorenas  hgnet hrnet ig_res "
        "inception lambda_res lamhalobotnet lcnet legacy_se legacy_xception mambaout mixnet "
        "mnasnet mobilenet mobileone nasnet nf_ nfnet pnasnet poolformer quantized_ rdnet regnet "
        "repghost repvgg  res2ne resne rexne sebotnet sedarknet sehalonet selecsls semnasnet "
        "senet seresne shufflenet skresne  spnasnet squeezenet ssl_ starnet swsl_ test_byobnet "
        "test_convnext test_efficientnet test_mambaout  test_nfnet test_resnet tf_ tinynet "
        "tresnet tv_ vgg vovnet wide_resnet xception",
        _MIXED: "coatnet coatnext cpubone davit edgenext efficientformer efficientvit fastvit focalnet "
        "gcvit hiera  iformer jx_nest levit lowformer maxvit maxxvit mobilevit mvit nest nextvit "
        "pvt repvit segformer shvit  swiftformer tiny_vit twins visformer",
        _WINDOWS: "swin",
        _MLPS: "gmixer gmlp mixer resmlp",
        _STATE_SPACE: "efficientvim mambavision sequencer2d",
        _BOXES: "deeplabv3 fasterrcnn fcn_ fcos keypointrcnn lraspp maskrcnn raft retinanet ssd300 ssdlite",
        _VIDEO: "mc3_ r2plus1d r3d_ s3d swin3d",
        "attention over channels": "xcit",
        "class attention and talking heads": "cait",
        "windowed attention": "sam_ sam2 samvit",
    }.items()
    for name in names.split()
}
"""What a network has that no ViTConfig can say, by the beginning of its name; the longest one counts."""

_TORCHVISIONS = re.compile(
    r"alexnet|(swin|maxvit)_[tsb]|(swin_v2|mvit_v\d)_[tsb]|(shufflenet|efficientnet)_v2_(x\d.*|[sml])|squeezenet.*|googlenet"
    r"|mnasnet\d.*|regnet_[xy]_.*|mobilenet_v[23].*|wide_resnet(50|101)_2|quantized_.*|.*rcnn_.*|(fcn|fcos|retinanet)_.*"
    r"|(deeplabv3|lraspp|ssd\d+|ssdlite\d+|raft)_.*|(swin3d|mc3|r3d|r2plus1d)_.*|s3d"
)
"""Names that torchvision has and timm, for most, has not."""


def what_it_has(name: str) -> str:
    """What a network of such a name has in place of a ViT's parts; empty for a name that tells nothing."""
    known = [beginning for beginning in BEGINNINGS if name.startswith(beginning)]
    return BEGINNINGS[max(known, key=len)] if known else ""


def as_module(name: str) -> str:
    """The argument that exports an architecture of timm's or torchvision's as a PyTorch module."""
    library = "torchvision" if _TORCHVISIONS.fullmatch(name) else "timm"
    return f"-m py:{library}.models:{name}" + (" --input-shape 3x224x224" if library == "torchvision" else "")
