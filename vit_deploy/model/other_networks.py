"""Well-known networks that are no Vision Transformer of ours, by how their names begin, and what each has instead.

The names are those of timm and torchvision. Those of timm's transformers stand one by one in
``architectures.json``; this is for the many that are further away, and for the ones yet to come.
"""

from __future__ import annotations

_STAGES = "stages of convolutions in place of blocks of attention"
_WINDOWS = "shifted windows and merged patches"
_MIXED = "stages of convolutions and attention, of different widths"
_MLPS = "MLPs across patches in place of attention"
_STATE_SPACE = "state-space layers or recurrences in place of attention"
_BOXES = "heads for boxes, masks or key points on a convolutional network"
_VIDEO = "convolutions or windows over several frames"
_TEXT = "text or another input that is no picture"

BEGINNINGS: dict[str, str] = {
    name: missing
    for missing, names in {
        _STAGES: "adv_inception alexnet bat_resnext botnet caformer convformer convmixer convnext cs3 cspdarknet "
        "cspnext cspresne darknet densenet dla dm_nfnet dpn eca_ ecaresne edgenext_conv efficientnet ens_adv "
        "ese_vovnet fasternet fbnet gc_efficientnet gcresne gernet ghostnet gluon_ googlenet halonet haloregnet "
        "hardcorenas hgnet hrnet ig_res inception lambda_res lcnet legacy_se legacy_xception mixnet mnasnet "
        "mobilenet mobileone nasnet nf_ nfnet pnasnet poolformer rdnet regnet repghost repvgg res2ne resne "
        "rexne sebotnet sehalonet selecsls semnasnet senet seresne shufflenet skresne spnasnet squeezenet "
        "starnet tf_ tinynet tresnet tv_ vgg vovnet wide_resnet xception resmobile sedarknet sknet "
        "mambaout test_convnext test_efficientnet test_byobnet test_resnet test_nfnet test_mambaout ssl_ swsl_ "
        "lamhalobotnet halo2botnet efficientnetv2 quantized_",
        _MIXED: "cpubone edgenext efficientformer efficientvit fastvit focalnet iformer lowformer maxvit maxxvit "
        "coatnet coatnext maxxvitv2 coatnet_ mobilevit mvit nextvit repvit shvit swiftformer pvt levit hiera twins "
        "segformer visformer coat_ davit gcvit nest jx_nest pit_ tiny_vit",
        _WINDOWS: "swin swinv2",
        _MLPS: "gmixer gmlp mixer resmlp",
        _STATE_SPACE: "efficientvim sequencer2d vim_ mambavision",
        _BOXES: "deeplabv3 fasterrcnn fcn_ fcos keypointrcnn lraspp maskrcnn retinanet ssd300 ssdlite raft",
        _VIDEO: "mc3_ r2plus1d r3d_ s3d swin3d",
        _TEXT: "albert bart bert deberta distilbert electra gpt llama mistral qwen roberta t5 wav2vec2 whisper",
        "attention over channels": "xcit",
        "class attention": "cait",
        "windowed attention": "sam_ samvit sam2",
    }.items()
    for name in names.split()
}
"""What a network has that no ViTConfig can say, by the beginning of its name; the longest one counts."""

_TORCHVISIONS = (
    "swin_t swin_s swin_b swin_v2_ shufflenet squeezenet googlenet alexnet mnasnet regnet_x_ regnet_y_ maxvit_t "
    "mvit_ efficientnet_v2_ mobilenet_v2 mobilenet_v3_ wide_resnet swin3d mc3_ r3d_ r2plus1d s3d vgg convnext_t"
).split()
"""How names begin that torchvision has, and timm has not or has as well."""


def what_it_has(name: str) -> str:
    """What a network of such a name has in place of a ViT's parts; empty for a name that tells nothing."""
    name = name.lower()
    known = [beginning for beginning in BEGINNINGS if name.startswith(beginning)]
    return BEGINNINGS[max(known, key=len)] if known else ""


def as_module(name: str, *, timms: bool = False) -> str:
    """The argument that exports such a network all the same, as a PyTorch module.

    Args:
        name: of the network, in the library that has it.
        timms: whether the name is known to be timm's.
    """
    torchvisions = not timms and any(name == start or name.startswith(start) for start in _TORCHVISIONS)
    return f"-m py:{'torchvision' if torchvisions else 'timm'}.models:{name}"
