//! The goldens from tokens to scores, as features.

use musc::Grid;
use musc::backend::HostFeatures;
use safetensors::{Dtype, SafeTensors};

/// One case of a file of goldens: a grid, and its tensors.
pub struct Stages<'a> {
    file: &'a SafeTensors<'a>,
    prefix: &'a str,
    /// The grid.
    pub grid: Grid,
}

impl<'a> Stages<'a> {
    /// The tensors whose names start with `prefix`.
    pub fn new(file: &'a SafeTensors<'a>, prefix: &'a str, grid: Grid) -> Self {
        Stages { file, prefix, grid }
    }

    fn tensor(&self, name: &str, dtype: Dtype) -> (Vec<usize>, &'a [u8]) {
        let tensor = self.file.tensor(&format!("{}{name}", self.prefix)).expect(name);
        assert_eq!(tensor.dtype(), dtype, "{name}");
        (tensor.shape().to_vec(), tensor.data())
    }

    /// A tensor of f32.
    pub fn floats(&self, name: &str) -> Vec<f32> {
        let (_, bytes) = self.tensor(name, Dtype::F32);
        bytes.as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
    }

    /// Marks of patches.
    pub fn marks(&self, name: &str) -> Vec<bool> {
        self.tensor(name, Dtype::U8).1.iter().map(|&mark| mark != 0).collect()
    }

    /// Layers `{tokens}.<l>`, each `[images, L, C]`.
    fn features(&self, tokens: &str) -> HostFeatures {
        let prefix = format!("{}{tokens}.", self.prefix);
        let names = self.file.names().into_iter();
        let mut layers: Vec<usize> =
            names.filter_map(|name| name.strip_prefix(&prefix)?.parse().ok()).collect();
        layers.sort_unstable();
        let name = |layer: &usize| format!("{tokens}.{layer}");
        let (shape, _) = self.tensor(&name(&layers[0]), Dtype::F32);
        assert_eq!(shape[1], self.grid.patches());
        let values = layers.iter().map(|layer| self.floats(&name(layer))).collect();
        HostFeatures::new(shape[0], self.grid, shape[2], layers, values)
    }

    /// The queries; of those whose twin among the references is known, both have one content.
    pub fn queries(&self) -> HostFeatures {
        let features = self.features("tokens");
        let images = features.images;
        features.with_content((0..images as u64).collect())
    }

    /// The references, `same` naming for each query the one with its content.
    pub fn references(&self) -> HostFeatures {
        let features = self.features("reference_tokens");
        let mut content: Vec<u64> = (0..features.images as u64).map(|at| 1000 + at).collect();
        let (_, same) = self.tensor("same", Dtype::I32);
        for (query, &bytes) in same.as_chunks::<4>().0.iter().enumerate() {
            if let Ok(reference) = usize::try_from(i32::from_le_bytes(bytes)) {
                content[reference] = query as u64;
            }
        }
        features.with_content(content)
    }
}
