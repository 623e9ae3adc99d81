"""Vision models of transformers that are no ViT of ours, and what they would need."""

from __future__ import annotations

_WINDOWS = "windowed attention over a grid that shrinks from stage to stage"
_DECOMPOSED = "windowed attention with decomposed relative positions"
_VIDEO = "patches that reach over several frames"
_PIXELS_TO_PIXELS = "a decoder that gives one answer per pixel"
_CONVOLUTIONS = "stages of convolutions"
_DETECTION = "detection tokens and boxes"
_WORDS = "an embedding of words: it reads text, and no pictures"
_SOUND = "sound instead of pictures"
_LANGUAGE = "a language model around its image tower: save the tower by itself"

MISSING: dict[str, str] = {
    **dict.fromkeys(
        ("swin", "swinv2", "swin2sr", "maskformer-swin", "donut-swin", "hiera", "focalnet"), _WINDOWS
    ),
    **dict.fromkeys(("dinat", "segformer", "pvt", "pvt_v2", "levit", "cvt", "efficientformer"), _WINDOWS),
    **dict.fromkeys(("mobilevit", "mobilevitv2", "swiftformer"), _WINDOWS),
    **dict.fromkeys(
        ("sam", "sam_vision_model", "sam_hq", "sam_hq_vision_model", "vitdet", "got_ocr2"), _DECOMPOSED
    ),
    **dict.fromkeys(("sam2", "sam2_vision_model", "sam2_hiera_det_model"), _WINDOWS),
    **dict.fromkeys(("sam3", "sam3_vision_model", "sam3_vit_model"), "windowed attention"),
    **dict.fromkeys(("convnext", "convnextv2", "resnet", "regnet", "bit", "efficientnet"), _CONVOLUTIONS),
    **dict.fromkeys(
        ("mobilenet_v1", "mobilenet_v2", "dinov3_convnext", "poolformer", "van", "hgnet_v2"), _CONVOLUTIONS
    ),
    **dict.fromkeys(("videomae", "vivit", "timesformer", "vjepa2", "x_clip", "xclip", "videoprism"), _VIDEO),
    **dict.fromkeys(
        ("dpt", "depth_anything", "zoedepth", "glpn", "upernet", "eomt", "vitmatte"), _PIXELS_TO_PIXELS
    ),
    **dict.fromkeys(
        ("clipseg", "clipseg_vision_model", "groupvit", "groupvit_vision_model"), _PIXELS_TO_PIXELS
    ),
    **dict.fromkeys(
        ("yolos", "detr", "owlvit", "owlv2", "owlvit_vision_model", "owlv2_vision_model"), _DETECTION
    ),
    **dict.fromkeys(("blip", "blip-2", "instructblip", "git", "llava", "paligemma", "idefics3"), _LANGUAGE),
    **dict.fromkeys(
        ("blip-2-qformer", "gemma3", "internvl", "mllama", "qwen2_vl", "qwen2_5_vl", "smolvlm"), _LANGUAGE
    ),
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "distilbert", "albert", "electra", "camembert"), _WORDS),
    **dict.fromkeys(("deberta", "deberta-v2", "modernbert", "mpnet", "t5", "mt5", "bart", "mbart"), _WORDS),
    **dict.fromkeys(("gpt2", "gpt_neo", "gpt_neox", "opt", "llama", "mistral", "mixtral", "qwen2"), _WORDS),
    **dict.fromkeys(("qwen3", "gemma", "gemma2", "phi", "phi3", "falcon", "bloom", "mamba"), _WORDS),
    **dict.fromkeys(("clip_text_model", "siglip_text_model", "siglip2_text_model"), _WORDS),
    **dict.fromkeys(("wav2vec2", "hubert", "whisper", "clap"), _SOUND),
    **dict.fromkeys(("aimv2", "aimv2_vision_model"), "RMS norms"),
    **dict.fromkeys(
        ("siglip2", "siglip2_vision_model"),
        "NaFlex: pictures of any aspect as padded rows of patches, which a fixed size cannot say; "
        "SigLIP 2 at a fixed size is of model_type 'siglip'",
    ),
    "vit_hybrid": "a convolutional stem before the patches",
    "mlcd": "a rotated class token",
    "mlcd_vision_model": "a rotated class token",
    "radio": "positions that are cut out of a larger table, and several summaries",
    "vitpose": "a head for key points",
    "vitpose_backbone": "padded patches and a mixture of experts",
    "vilt": "text in one sequence with the patches",
    "flava": "three towers in one",
    "timm_wrapper": "timm's own config; give the directory that timm wrote",
    "audio-spectrogram-transformer": _SOUND,
}
"""What is missing, by ``model_type``."""
