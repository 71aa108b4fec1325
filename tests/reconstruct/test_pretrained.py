"""Pipelines of diffusers: the real loading code on tiny ones with random weights."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from braindecode_pipe.errors import DataError, ModelError
from braindecode_pipe.reconstruct.interface import generate_in_batches
from braindecode_pipe.reconstruct.pretrained import DiffusersGenerator
from braindecode_pipe.store import open_store, store_attrs

WIDTH = 16
needs_diffusers = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.fixture(scope="session")
def diffusers():
    return pytest.importorskip("diffusers", reason="the extra `reconstruct` is not installed")


def unet(diffusers, **options):
    torch.manual_seed(0)
    return diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=4, layers_per_block=1,
        block_out_channels=(8, 16), norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=8, attention_head_dim=4, **options,
    )  # fmt: skip


def tokenizer(folder):
    from transformers import CLIPTokenizer

    words = ["<|startoftext|>", "<|endoftext|>", "a", "a</w>"]
    (folder / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"))


@pytest.fixture(scope="session")
def unclip(diffusers, tmp_path_factory):
    """A StableUnCLIPImg2ImgPipeline in a folder."""
    import transformers as hf
    from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import (
        StableUnCLIPImageNormalizer,
    )

    torch.manual_seed(0)
    tower = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
             "num_attention_heads": 2, "projection_dim": WIDTH}  # fmt: skip
    pipe = diffusers.StableUnCLIPImg2ImgPipeline(
        feature_extractor=hf.CLIPImageProcessor(size=16, crop_size=16),
        image_encoder=hf.CLIPVisionModelWithProjection(
            hf.CLIPVisionConfig(image_size=16, patch_size=8, **tower)
        ),
        image_normalizer=StableUnCLIPImageNormalizer(embedding_dim=WIDTH),
        image_noising_scheduler=diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        tokenizer=tokenizer(tmp_path_factory.mktemp("words")),
        text_encoder=hf.CLIPTextModel(
            hf.CLIPTextConfig(vocab_size=4, bos_token_id=0, eos_token_id=1,
                              max_position_embeddings=8, **tower)
        ),
        # The embedding and the noise level's, side by side.
        unet=unet(diffusers, class_embed_type="projection",
                  projection_class_embeddings_input_dim=2 * WIDTH),
        scheduler=diffusers.DDIMScheduler(),
        vae=diffusers.AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, sample_size=8),
    )  # fmt: skip
    pipe.tokenizer.model_max_length = 8
    folder = tmp_path_factory.mktemp("unclip")
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture(scope="session")
def kandinsky(diffusers, tmp_path_factory):
    """A KandinskyV22Img2ImgPipeline in a folder."""
    torch.manual_seed(1)
    pipe = diffusers.KandinskyV22Img2ImgPipeline(
        unet=_kandinsky_unet(diffusers),
        scheduler=diffusers.DDPMScheduler(num_train_timesteps=100),
        movq=diffusers.VQModel(
            block_out_channels=(32, 32), norm_num_groups=8, latent_channels=4,
            num_vq_embeddings=4, norm_type="spatial",
            down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
            up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
        ),
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("kandinsky")
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def _kandinsky_unet(diffusers):
    torch.manual_seed(2)
    return diffusers.UNet2DConditionModel(
        sample_size=8, in_channels=4, out_channels=8, layers_per_block=1,
        block_out_channels=(8, 16), norm_num_groups=4,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn", cross_attention_dim=8,
        attention_head_dim=4, addition_embed_type="image", encoder_hid_dim=WIDTH,
        encoder_hid_dim_type="image_proj", resnet_time_scale_shift="scale_shift",
        class_embed_type=None,
    )  # fmt: skip


def arrays(images):
    return np.stack([np.asarray(image) for image in images])


@needs_diffusers
@pytest.mark.parametrize("kind", ["unclip", "kandinsky"])
def test_a_saved_pipeline_draws_and_its_seeds_give_bytes(kind, request):
    folder = request.getfixturevalue(kind)
    generator = DiffusersGenerator(str(folder), steps=2, side=16, guidance=2.0)
    assert generator.width == WIDTH and str(folder.parent) not in str(generator.facts)
    vectors = np.random.default_rng(0).normal(size=(3, WIDTH))
    low = {"low_level": np.full((3, 8, 8, 3), 0.5)} if kind == "kandinsky" else {}
    made = arrays(generator.generate(vectors, seed=[1, 2, 3], **low))
    assert made.shape == (3, 16, 16, 3) and made.dtype == np.uint8
    np.testing.assert_array_equal(made, arrays(generator.generate(vectors, seed=[1, 2, 3], **low)))
    # A picture hangs on its own seed, not on what is beside it in the batch.
    one = {k: v[1:2] for k, v in low.items()}
    alone = arrays(generator.generate(vectors[1:2], seed=[2], **one))
    assert np.abs(alone[0].astype(int) - made[1]).max() <= 1
    assert (made != arrays(generator.generate(vectors, seed=[4, 5, 6], **low))).any()
    assert (made != arrays(generator.generate(-9 * vectors, seed=[1, 2, 3], **low))).any()
    with pytest.raises(ModelError, match="another width"):
        generate_in_batches(generator, vectors[:, :-1])
    vectors[0, 0] = np.inf
    with pytest.raises(DataError, match="not finite"):
        generate_in_batches(generator, vectors)


@needs_diffusers
def test_the_stage_draws_with_a_pipeline_and_names_it(unclip, make):
    out, records = make(width=WIDTH).run(generator=str(unclip), draws=1)
    [fold] = store_attrs(out)["generators"]
    assert fold["generator"] == unclip.name and fold["stochastic"]
    assert open_store(out, "pictures")["pictures"].shape[-3:] == (8, 8, 3)
    assert len(records) == 3
    with pytest.raises(ModelError, match="another width"):
        make(width=WIDTH + 1, folder="other").run(generator=str(unclip))


@needs_diffusers
def test_a_pipeline_that_begins_from_noise_takes_no_blurred_picture(unclip):
    generator = DiffusersGenerator(str(unclip), steps=1, side=16)
    with pytest.raises(ModelError, match="cannot begin from a blurred picture"):
        generator.generate(np.zeros((1, WIDTH)), np.zeros((1, 8, 8, 3)))


@needs_diffusers
def test_what_is_no_generator_is_refused(diffusers, unclip, tmp_path):
    with pytest.raises(ModelError, match="folder of the generator is missing"):
        DiffusersGenerator(str(tmp_path / "nowhere"))
    with pytest.raises(ModelError, match="not on this machine"):
        DiffusersGenerator("nobody/has-this-model")
    with pytest.raises(ModelError, match="holds no generator"):
        DiffusersGenerator(str(tmp_path))
    (tmp_path / "model_index.json").write_text('{"_class_name": "DDPMPipeline"}')
    with pytest.raises(ModelError, match="does not draw"):
        DiffusersGenerator(str(tmp_path))
    (tmp_path / "model_index.json").write_text((unclip / "model_index.json").read_text())
    with pytest.raises(ModelError, match="cannot be loaded"):
        DiffusersGenerator(str(tmp_path))


def test_without_the_library_the_remedy_is_told(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "diffusers", None)
    with pytest.raises(ModelError, match=r"braindecode-pipe\[reconstruct\]"):
        DiffusersGenerator("owner/name")
