//! Tensors in memory that tests rename, change and hand to the loader as a file's bytes.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

use half::{bf16, f16};
use musc::Result;
use musc::model::{Vit, WeightFile};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};

/// A tensor by value.
#[derive(Clone)]
pub struct Raw {
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl Raw {
    pub fn f32(shape: &[usize], values: impl IntoIterator<Item = f32>) -> Self {
        let bytes: Vec<u8> = values.into_iter().flat_map(f32::to_le_bytes).collect();
        assert_eq!(bytes.len(), shape.iter().product::<usize>() * 4);
        Self { dtype: Dtype::F32, shape: shape.to_vec(), bytes }
    }

    pub fn zeros(shape: &[usize]) -> Self {
        Self::f32(shape, vec![0.0; shape.iter().product()])
    }

    /// The values of an f32 tensor.
    pub fn values(&self) -> Vec<f32> {
        assert_eq!(self.dtype, Dtype::F32);
        self.bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    pub fn to_f16(&self) -> Self {
        let bytes = self.values().into_iter().flat_map(|x| f16::from_f32(x).to_le_bytes());
        Self { dtype: Dtype::F16, shape: self.shape.clone(), bytes: bytes.collect() }
    }

    pub fn to_bf16(&self) -> Self {
        let bytes = self.values().into_iter().flat_map(|x| bf16::from_f32(x).to_le_bytes());
        Self { dtype: Dtype::BF16, shape: self.shape.clone(), bytes: bytes.collect() }
    }

    pub fn reshaped(&self, shape: &[usize]) -> Self {
        Self::f32(shape, self.values())
    }

    pub fn transposed(&self) -> Self {
        let &[rows, columns] = self.shape.as_slice() else { panic!("not a matrix") };
        let values = self.values();
        let swapped = (0..columns * rows).map(|i| values[i % rows * columns + i / rows]);
        Self::f32(&[columns, rows], swapped)
    }

    /// Equal parts along the first dimension.
    pub fn split(&self, parts: usize) -> Vec<Self> {
        let mut shape = self.shape.clone();
        shape[0] /= parts;
        let length = self.values().len() / parts;
        self.values().chunks(length).map(|part| Self::f32(&shape, part.to_vec())).collect()
    }
}

pub type Tensors = BTreeMap<String, Raw>;

/// A file of `tests/data`.
pub fn data(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// The weights of a tiny golden: `clip`, `dino` or `dinov2`.
pub fn tiny(name: &str) -> Tensors {
    read(&format!("{name}_tiny_weights.safetensors"))
}

/// The pixels and features of a tiny golden.
pub fn golden(name: &str) -> Tensors {
    read(&format!("{name}_tiny.safetensors"))
}

fn read(file: &str) -> Tensors {
    let bytes = std::fs::read(data(file)).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let raw = |view: TensorView<'_>| Raw {
        dtype: view.dtype(),
        shape: view.shape().to_vec(),
        bytes: view.data().to_vec(),
    };
    file.tensors().into_iter().map(|(name, view)| (name, raw(view))).collect()
}

pub fn file_bytes(tensors: &Tensors) -> Vec<u8> {
    let views = tensors.iter().map(|(name, raw)| {
        (name, TensorView::new(raw.dtype, raw.shape.clone(), &raw.bytes).unwrap())
    });
    safetensors::serialize(views, None::<HashMap<String, String>>).unwrap()
}

pub fn load_bytes(bytes: Vec<u8>) -> Result<Vit> {
    Vit::from_file(&WeightFile::from_bytes("test.safetensors", bytes)?)
}

pub fn load(tensors: &Tensors) -> Result<Vit> {
    load_bytes(file_bytes(tensors))
}

/// The message with which a file is refused.
pub fn refusal(tensors: &Tensors) -> String {
    load(tensors).unwrap_err().to_string()
}

/// Renames tensors; a name that no rule changes stays.
pub fn renamed(tensors: &Tensors, rules: &[(&str, &str)]) -> Tensors {
    let rename = |name: &String| {
        rules.iter().fold(name.clone(), |name, (from, to)| {
            // A rule that begins with ^ holds at the start of a name only.
            match from.strip_prefix('^') {
                None => name.replace(from, to),
                Some(start) => match name.strip_prefix(start) {
                    Some(rest) => format!("{to}{rest}"),
                    None => name,
                },
            }
        })
    };
    tensors.iter().map(|(name, raw)| (rename(name), raw.clone())).collect()
}

/// The smallest ViT of scheme E: one block, one head, one patch of 2×2 pixels, MLP width 8.
pub fn smallest() -> Tensors {
    let shapes: &[(&str, &[usize])] = &[
        ("cls_token", &[1, 1, 64]),
        ("pos_embed", &[1, 2, 64]),
        ("patch_embed.proj.weight", &[64, 3, 2, 2]),
        ("patch_embed.proj.bias", &[64]),
        ("norm.weight", &[64]),
        ("norm.bias", &[64]),
        ("blocks.0.norm1.weight", &[64]),
        ("blocks.0.norm1.bias", &[64]),
        ("blocks.0.attn.qkv.weight", &[192, 64]),
        ("blocks.0.attn.qkv.bias", &[192]),
        ("blocks.0.attn.proj.weight", &[64, 64]),
        ("blocks.0.attn.proj.bias", &[64]),
        ("blocks.0.ls1.gamma", &[64]),
        ("blocks.0.norm2.weight", &[64]),
        ("blocks.0.norm2.bias", &[64]),
        ("blocks.0.mlp.fc1.weight", &[8, 64]),
        ("blocks.0.mlp.fc1.bias", &[8]),
        ("blocks.0.mlp.fc2.weight", &[64, 8]),
        ("blocks.0.mlp.fc2.bias", &[64]),
        ("blocks.0.ls2.gamma", &[64]),
    ];
    shapes.iter().map(|(name, shape)| (name.to_string(), Raw::zeros(shape).to_f16())).collect()
}
