//! Files that are accepted: the same weights under every naming and type give the same model.

use half::{bf16, f16};
use musc::ImageSize;
use musc::backend::cpu::Cpu;
use musc::backend::{Backend, Extraction, FeatureSet, Pixels};
use musc::image::Normalisation;
use musc::model::{Activation, Architecture, Dtype, Family, Linear, Scheme, Tensor, Vit};

use crate::compare::relative_l2;
use crate::support::*;

/// Every value of a model, in a fixed order.
fn all_values(vit: &Vit) -> Vec<f32> {
    let mut tensors: Vec<&Tensor> =
        vec![&vit.patch_weight, &vit.class_token, &vit.position_embedding];
    tensors.extend([&vit.patch_bias, &vit.projection].into_iter().flatten());
    let mut norms = vec![&vit.final_norm];
    norms.extend(&vit.pre_norm);
    for block in &vit.blocks {
        norms.extend([&block.norm1, &block.norm2]);
        let linears: [&Linear; 4] = [&block.qkv, &block.out, &block.fc1, &block.fc2];
        tensors.extend(linears.iter().flat_map(|layer| [&layer.weight, &layer.bias]));
        tensors.extend([&block.scale1, &block.scale2].into_iter().flatten());
    }
    tensors.extend(norms.iter().flat_map(|norm| [&norm.weight, &norm.bias]));
    tensors.into_iter().flat_map(Tensor::to_f32).collect()
}

fn expect_same(found: &Vit, expected: &Vit, scheme: Scheme) {
    assert_eq!(found.scheme(), scheme);
    assert_eq!(found.architecture, expected.architecture);
    assert_eq!(found.patch_weight.shape(), expected.patch_weight.shape());
    assert_eq!(found.class_token.shape(), expected.class_token.shape());
    assert_eq!(found.position_embedding.shape(), expected.position_embedding.shape());
    assert!(all_values(found) == all_values(expected), "the values differ");
    expect_golden_features(found);
}

/// Runs the model on its family's golden, on the processor and on a simulated card (f16), each within the spec's
/// tolerance.
fn expect_golden_features(vit: &Vit) {
    expect_golden_features_on(&Cpu::new(2).unwrap(), vit, 1e-4);
    #[cfg(feature = "sim")]
    {
        use musc::backend::cuda::{Cuda, CudaOptions};
        expect_golden_features_on(&Cuda::sim(CudaOptions::default()).unwrap(), vit, 2e-3);
    }
}

/// At the native grid and at another one, CLIP with both activations.
fn expect_golden_features_on<B: Backend>(backend: &B, vit: &Vit, tolerance: f64) {
    let (name, activations) = match vit.architecture.family {
        Family::Clip => {
            ("clip", vec![(".gelu", Activation::Gelu), (".quick_gelu", Activation::QuickGelu)])
        }
        Family::Dino => ("dino", vec![("", Activation::Gelu)]),
        Family::Dinov2 => ("dinov2", vec![("", Activation::Gelu)]),
        other => panic!("no golden of {other:?}"),
    };
    let golden = golden(name);
    for (kind, grid) in [("native", 4), ("resized", 7)] {
        for (suffix, activation) in &activations {
            let input = ImageSize::square(grid * vit.architecture.patch);
            let extraction =
                Extraction::new(vec![1, 3], input, *activation, Normalisation::IMAGENET);
            let model = backend.load(vit, &extraction).unwrap();
            let pixels = golden[&format!("{kind}.pixels")].values();
            let found = backend.extract(&model, Pixels::Normalised(&pixels), &()).unwrap();
            for (part, values) in [
                ("layer1", found.patch_tokens(0).unwrap()),
                ("layer3", found.patch_tokens(1).unwrap()),
                ("class_token", found.class_tokens().unwrap()),
            ] {
                let expected = golden[&format!("{kind}{suffix}.{part}")].values();
                let what = format!("{}, {:?}", backend.description(), vit.scheme());
                let what = format!("{what} {kind}{suffix} {part}");
                let error = relative_l2(&what, &values, &expected);
                assert!(error < tolerance, "{what}: {error:e}");
            }
        }
    }
}

/// Replaces each block's stacked query, key and value by three layers.
fn with_separate_qkv(tensors: &Tensors, stacked: &str, names: [&str; 3]) -> Tensors {
    let mut separate = Tensors::new();
    for (name, raw) in tensors {
        let Some((block, kind)) = name.split_once(stacked) else {
            separate.insert(name.clone(), raw.clone());
            continue;
        };
        for (part, raw) in names.iter().zip(raw.split(3)) {
            separate.insert(format!("{block}{part}.{kind}"), raw);
        }
    }
    separate
}

/// Scheme D or E to F or G.
fn as_hugging_face(tensors: &Tensors, block_rules: &[(&str, &str)]) -> Tensors {
    let parts = ["query", "key", "value"].map(|part| format!("attention.attention.{part}"));
    let parts = parts.each_ref().map(String::as_str);
    let tensors = with_separate_qkv(tensors, "attn.qkv.", parts);
    let tensors = renamed(
        &tensors,
        &[
            ("^cls_token", "embeddings.cls_token"),
            ("^pos_embed", "embeddings.position_embeddings"),
            ("^patch_embed.proj", "embeddings.patch_embeddings.projection"),
            ("^norm.", "layernorm."),
            ("^blocks.", "encoder.layer."),
            ("attn.proj", "attention.output.dense"),
        ],
    );
    renamed(&tensors, block_rules)
}

fn tiny_architecture(family: Family, patch: usize, class_dim: usize, eps: f32) -> Architecture {
    Architecture {
        family,
        width: 128,
        depth: 4,
        heads: 2,
        patch,
        native_grid: 4,
        mlp_width: 512,
        class_dim,
        layer_norm_eps: eps,
    }
}

#[test]
#[cfg_attr(packaged, ignore = "a file that is in the repository only")]
fn the_goldens_of_all_families_open() {
    for (name, scheme, architecture) in [
        ("clip", Scheme::OpenClip, tiny_architecture(Family::Clip, 14, 48, 1e-5)),
        ("dino", Scheme::Dino, tiny_architecture(Family::Dino, 16, 128, 1e-6)),
        ("dinov2", Scheme::Dinov2, tiny_architecture(Family::Dinov2, 14, 128, 1e-6)),
    ] {
        let path = data(&format!("{name}_tiny_weights.safetensors"));
        let vit = Vit::open(&path).unwrap();
        assert_eq!(vit.scheme(), scheme);
        assert_eq!(vit.architecture, architecture);
        assert_eq!(vit.source(), path.display().to_string());
        assert_eq!(vit.pre_norm.is_some(), name == "clip");
        assert_eq!(vit.patch_bias.is_some(), name != "clip");
        assert_eq!(vit.projection.is_some(), name == "clip");
        assert!(vit.blocks.iter().all(|block| block.scale1.is_some() == (name == "dinov2")));
        assert!(vit.blocks.iter().all(|block| block.scale2.is_some() == (name == "dinov2")));

        let tensors = tiny(name);
        let values: usize = tensors.values().map(|raw| raw.values().len()).sum();
        assert_eq!(vit.parameter_count(), values);
        assert_eq!(all_values(&vit).len(), values);
    }
}

#[test]
fn parts_are_where_they_belong() {
    let tensors = tiny("dinov2");
    let vit = load(&tensors).unwrap();
    let same = |tensor: &Tensor, name: &str| {
        assert!(tensor.to_f32() == tensors[name].values(), "{name}");
    };
    same(&vit.patch_weight, "patch_embed.proj.weight");
    same(&vit.class_token, "cls_token");
    same(&vit.position_embedding, "pos_embed");
    same(&vit.final_norm.bias, "norm.bias");
    let block = &vit.blocks[2];
    same(&block.norm1.weight, "blocks.2.norm1.weight");
    same(&block.qkv.weight, "blocks.2.attn.qkv.weight");
    same(&block.out.bias, "blocks.2.attn.proj.bias");
    same(block.scale1.as_ref().unwrap(), "blocks.2.ls1.gamma");
    same(&block.norm2.bias, "blocks.2.norm2.bias");
    same(&block.fc1.weight, "blocks.2.mlp.fc1.weight");
    same(&block.fc2.weight, "blocks.2.mlp.fc2.weight");
    same(block.scale2.as_ref().unwrap(), "blocks.2.ls2.gamma");
}

#[test]
#[cfg_attr(packaged, ignore = "a file that is in the repository only")]
fn scheme_b_timm_clip() {
    let open_clip = tiny("clip");
    let mut timm = renamed(
        &open_clip,
        &[
            ("^visual.class_embedding", "cls_token"),
            ("^visual.positional_embedding", "pos_embed"),
            ("^visual.conv1", "patch_embed.proj"),
            ("^visual.ln_pre", "norm_pre"),
            ("^visual.ln_post", "norm"),
            ("^visual.transformer.resblocks.", "blocks."),
            ("ln_1", "norm1"),
            ("ln_2", "norm2"),
            ("attn.in_proj_", "attn.qkv."),
            ("attn.out_proj", "attn.proj"),
            ("c_fc", "fc1"),
            ("c_proj", "fc2"),
        ],
    );
    let projection = timm.remove("visual.proj").unwrap();
    timm.insert("head.weight".into(), projection.transposed());
    timm.insert("head.bias".into(), Raw::zeros(&[48]));
    for (name, shape) in [("cls_token", &[1, 1, 128]), ("pos_embed", &[1, 17, 128])] {
        let reshaped = timm[name].reshaped(shape);
        timm.insert(name.into(), reshaped);
    }
    let expected = load(&open_clip).unwrap();
    expect_same(&load(&timm).unwrap(), &expected, Scheme::TimmClip);
    timm.remove("head.bias");
    expect_same(&load(&timm).unwrap(), &expected, Scheme::TimmClip);

    let bias = Raw::f32(&[48], (0..48).map(|index| if index == 7 { 0.5 } else { 0.0 }));
    timm.insert("head.bias".into(), bias);
    let message = refusal(&timm);
    assert!(message.contains("tensor `head.bias` is not zero"), "{message}");
}

#[test]
#[cfg_attr(packaged, ignore = "a file that is in the repository only")]
fn scheme_c_hugging_face_clip() {
    let open_clip = tiny("clip");
    let names = ["q_proj", "k_proj", "v_proj"].map(|part| format!("self_attn.{part}"));
    let names = names.each_ref().map(String::as_str);
    let mut hugging_face = renamed(
        &with_separate_qkv(&open_clip, "attn.in_proj_", names),
        &[
            ("^visual.class_embedding", "vision_model.embeddings.class_embedding"),
            ("^visual.positional_embedding", "vision_model.embeddings.position_embedding.weight"),
            ("^visual.conv1", "vision_model.embeddings.patch_embedding"),
            ("^visual.ln_pre", "vision_model.pre_layrnorm"),
            ("^visual.ln_post", "vision_model.post_layernorm"),
            ("^visual.transformer.resblocks.", "vision_model.encoder.layers."),
            ("ln_1", "layer_norm1"),
            ("ln_2", "layer_norm2"),
            (".attn.out_proj", ".self_attn.out_proj"),
            ("c_fc", "fc1"),
            ("c_proj", "fc2"),
        ],
    );
    let projection = hugging_face.remove("visual.proj").unwrap();
    hugging_face.insert("visual_projection.weight".into(), projection.transposed());
    // What the text tower and the framework bring along.
    let positions = Raw {
        dtype: safetensors::Dtype::I64,
        shape: vec![1, 17],
        bytes: (0..17i64).flat_map(i64::to_le_bytes).collect(),
    };
    hugging_face.insert("vision_model.embeddings.position_ids".into(), positions.clone());
    hugging_face.insert("text_model.embeddings.position_ids".into(), positions);
    hugging_face.insert("text_projection.weight".into(), Raw::zeros(&[48, 32]));
    hugging_face.insert("logit_scale".into(), Raw::zeros(&[]));
    let vit = load(&hugging_face).unwrap();
    expect_same(&vit, &load(&open_clip).unwrap(), Scheme::HuggingFaceClip);
}

#[test]
#[cfg_attr(packaged, ignore = "a file that is in the repository only")]
fn scheme_f_hugging_face_vit() {
    let dino = tiny("dino");
    let mut hugging_face = as_hugging_face(
        &dino,
        &[
            ("norm1", "layernorm_before"),
            ("norm2", "layernorm_after"),
            ("mlp.fc1", "intermediate.dense"),
            ("mlp.fc2", "output.dense"),
        ],
    );
    hugging_face.insert("pooler.dense.weight".into(), Raw::zeros(&[128, 128]));
    let vit = load(&hugging_face).unwrap();
    expect_same(&vit, &load(&dino).unwrap(), Scheme::HuggingFaceVit);
    assert_eq!(vit.architecture.layer_norm_eps, 1e-6);
}

#[test]
fn scheme_g_hugging_face_dinov2_in_every_type() {
    let dinov2 = tiny("dinov2");
    let rules = [("ls1.gamma", "layer_scale1.lambda1"), ("ls2.gamma", "layer_scale2.lambda1")];
    let mut hugging_face = as_hugging_face(&dinov2, &rules);
    hugging_face.insert("embeddings.mask_token".into(), Raw::zeros(&[1, 128]));
    let expected = load(&dinov2).unwrap();
    expect_same(&load(&hugging_face).unwrap(), &expected, Scheme::HuggingFaceDinov2);

    let exact = all_values(&expected);
    for (convert, dtype) in
        [(Raw::to_f16 as fn(&Raw) -> Raw, Dtype::F16), (Raw::to_bf16, Dtype::Bf16)]
    {
        let converted = hugging_face.iter().map(|(name, raw)| (name.clone(), convert(raw)));
        let vit = load(&converted.collect()).unwrap();
        assert_eq!(vit.architecture, expected.architecture);
        assert_eq!(vit.blocks[1].qkv.weight.dtype(), dtype);
        let rounded: Vec<f32> = exact
            .iter()
            .map(|&value| match dtype {
                Dtype::F16 => f16::from_f32(value).to_f32(),
                _ => bf16::from_f32(value).to_f32(),
            })
            .collect();
        assert!(all_values(&vit) == rounded, "{dtype:?}");
        assert!(rounded != exact);
    }
}

#[test]
fn query_key_and_value_may_differ_in_type() {
    let dinov2 = tiny("dinov2");
    let rules = [("ls1.gamma", "layer_scale1.lambda1"), ("ls2.gamma", "layer_scale2.lambda1")];
    let mut mixed = as_hugging_face(&dinov2, &rules);
    let name = "encoder.layer.3.attention.attention.key.weight";
    let key = mixed[name].to_f16();
    mixed.insert(name.into(), key);
    let vit = load(&mixed).unwrap();
    let found = vit.blocks[3].qkv.weight.to_f32();
    let expected = dinov2["blocks.3.attn.qkv.weight"].values();
    let part = 128 * 128;
    assert!(found[..part] == expected[..part]);
    assert!(found[2 * part..] == expected[2 * part..]);
    let rounded = expected[part..2 * part].iter().map(|&x| f16::from_f32(x).to_f32());
    assert!(found[part..2 * part].iter().copied().eq(rounded));
}

#[test]
#[cfg_attr(packaged, ignore = "a file that is in the repository only")]
fn wrappers_and_other_parts_of_a_model_do_not_matter() {
    let clip = tiny("clip");
    let mut wrapped = renamed(&clip, &[("^visual.", "module.model.visual.")]);
    wrapped.insert("module.model.token_embedding.weight".into(), Raw::zeros(&[10, 32]));
    wrapped.insert("module.model.transformer.resblocks.0.ln_1.bias".into(), Raw::zeros(&[32]));
    wrapped.insert("module.model.logit_scale".into(), Raw::zeros(&[]));
    expect_same(&load(&wrapped).unwrap(), &load(&clip).unwrap(), Scheme::OpenClip);

    let dino = tiny("dino");
    let mut wrapped: Tensors =
        dino.iter().map(|(name, raw)| (format!("teacher.backbone.{name}"), raw.clone())).collect();
    wrapped.insert("teacher.head.mlp.0.weight".into(), Raw::zeros(&[16, 128]));
    expect_same(&load(&wrapped).unwrap(), &load(&dino).unwrap(), Scheme::Dino);

    let dinov2 = tiny("dinov2");
    let mut masked = dinov2.clone();
    masked.insert("mask_token".into(), Raw::zeros(&[1, 128]));
    let vit = load(&masked).unwrap();
    expect_same(&vit, &load(&dinov2).unwrap(), Scheme::Dinov2);
    assert_eq!(vit.parameter_count(), load(&dinov2).unwrap().parameter_count());
}

#[test]
#[cfg_attr(packaged, ignore = "a file that is in the repository only")]
fn the_default_weights_are_dinov2_vits14() {
    use musc::model::{WeightFile, backbone};
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/weights/dinov2_vits14.safetensors");
    let bytes = std::fs::read(path).unwrap();
    let vit = Vit::from_file(&WeightFile::from_bytes("embedded weights", bytes).unwrap()).unwrap();
    assert_eq!(vit.scheme(), Scheme::Dinov2);
    vit.check_backbone(backbone("dinov2_vits14").unwrap()).unwrap();
    // 22,056,576 with the mask token.
    assert_eq!(vit.parameter_count(), 22_056_192);
    assert_eq!(vit.source(), "embedded weights");

    let message = vit.check_backbone(backbone("dinov2_vitb14").unwrap()).unwrap_err().to_string();
    assert_eq!(
        message,
        "embedded weights: not the weights of dinov2_vitb14: found DINOv2, width 384, depth 12, \
         patch 14, native size 518, MLP width 1536, class token width 384, expected DINOv2, width \
         768, depth 12, patch 14, native size 518, MLP width 3072, class token width 768; they fit \
         dinov2_vits14"
    );
}
