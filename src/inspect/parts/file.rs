//! A part as one safetensors file.
//!
//! | tensor | shape | is |
//! |---|---|---|
//! | `asked` | `[m]`, U64 | places in the batch of the images that were asked for |
//! | `places` | `[n]`, U64 | places of those that were scored |
//! | `sizes` | `[n, 2]`, U64 | width and height of each image's file |
//! | `patch_scores` | `[n, P]`, F32, or F64 with the authors' quirks | patch scores, with tiles of all tiles |
//! | `class_tokens` | `[n, E]`, F32 | class tokens |
//! | `left_out` | `[n, P]`, U8 | not 0 for patches that are left out, if there are any |
//!
//! Metadata: `format` is `musc-part`, `version` is `1`; `job`, what it is a part of; `bad`, files that could not be read, as
//! JSON; `sixteen_bits`, a number; `sha256`, of all values.

use std::path::{Path, PathBuf};

use super::part::{Part, Scored};
use crate::model::sha256_of_parts;
use crate::tensor_file::{Tensor, TensorFile, Values, printable, write_tensors};
use crate::{Error, Result};

const FORMAT: (&str, &str) = ("format", "musc-part");
const VERSION: (&str, &str) = ("version", "1");

impl Part {
    /// The part as bytes, for a worker elsewhere: those of its file.
    ///
    /// # Errors
    /// [`Error::Io`] where no temporary file can be made.
    pub fn to_bytes(&self, job: &str) -> Result<Vec<u8>> {
        let (_folder, path) = aside()?;
        write(&path, self, job)?;
        std::fs::read(&path).map_err(Error::io("read", &path))
    }

    /// The part that [`Self::to_bytes`] made bytes of, for the same job.
    ///
    /// # Errors
    /// [`Error::Dataset`] and [`Error::Tensor`] for bytes that are damaged or of another job; [`Error::Io`] where no temporary
    /// file can be made.
    pub fn of_bytes(bytes: &[u8], job: &str) -> Result<Part> {
        let (_folder, path) = aside()?;
        std::fs::write(&path, bytes).map_err(Error::io("write", &path))?;
        read(&path, job)
    }
}

/// A file in a folder that goes when it is dropped.
fn aside() -> Result<(tempfile::TempDir, PathBuf)> {
    let folder =
        tempfile::tempdir().map_err(Error::io("make a folder in", &std::env::temp_dir()))?;
    let path = folder.path().join("part.safetensors");
    Ok((folder, path))
}

/// Writes a part of a job.
pub(super) fn write(path: &Path, part: &Part, job: &str) -> Result<()> {
    let wide = |values: &[usize]| values.iter().map(|&value| value as u64).collect::<Vec<_>>();
    let (asked, places) = (wide(&part.asked), wide(&part.places));
    let sizes: Vec<u64> =
        part.sizes.iter().flat_map(|&(width, height)| [width.into(), height.into()]).collect();
    let marks: Vec<u8> = part.scored.left_out.iter().map(|&mark| mark.into()).collect();
    let (images, patches) = (part.len(), part.patches);
    let (of_asked, of_sizes) = ([asked.len()], [images, 2]);
    let (of_scores, of_tokens) = ([images, patches], [images, part.scored.class_width]);
    let mut tensors = vec![
        Tensor::u64("asked", &of_asked, &asked),
        Tensor::u64("places", &of_scores[..1], &places),
        Tensor::u64("sizes", &of_sizes, &sizes),
        match &part.scored.exact_scores {
            Some(exact) => Tensor::f64("patch_scores", &of_scores, exact),
            None => Tensor::f32("patch_scores", &of_scores, &part.scored.patch_scores),
        },
        Tensor::f32("class_tokens", &of_tokens, &part.scored.class_tokens),
    ];
    if !marks.is_empty() {
        tensors.push(Tensor::u8("left_out", &of_scores, &marks));
    }
    let bad = bad_as_json(&part.bad);
    let metadata = [
        (FORMAT.0, FORMAT.1.to_string()),
        (VERSION.0, VERSION.1.to_string()),
        ("job", job.to_string()),
        ("sha256", hash(part, job)),
        ("sixteen_bits", part.sixteen_bits.to_string()),
        ("bad", bad),
    ];
    write_tensors(path, &tensors, &metadata)
}

/// Reads a part of a job, and compares it with its own hash.
pub(super) fn read(path: &Path, job: &str) -> Result<Part> {
    let mut file = TensorFile::open(path)?;
    let refuse = |reason: String| Error::Dataset { path: path.to_path_buf(), reason };
    for (key, expected) in [FORMAT, VERSION, ("job", job)] {
        let found = file.metadata(key).unwrap_or("nothing");
        if found != expected {
            let found = printable(found);
            return Err(refuse(format!(
                "no part of this job: its `{key}` is {found}, expected {expected}"
            )));
        }
    }
    let told = |key: &str| {
        let value = file.metadata(key).map(String::from);
        value.ok_or_else(|| refuse(format!("its metadata have no `{key}`, which a part has")))
    };
    let known_hash = told("sha256")?;
    let sixteen_bits = told("sixteen_bits")?;
    let sixteen_bits = sixteen_bits.parse().map_err(|_| {
        refuse(format!("its `sixteen_bits` is {}, expected a number", printable(&sixteen_bits)))
    })?;
    let bad: Vec<(PathBuf, String)> = serde_json::from_str(&told("bad")?)
        .map_err(|error| refuse(format!("its `bad` is no list of files: {error}")))?;
    let narrow = |file: &TensorFile, name: &str, values: Values<u64>| -> Result<Vec<usize>> {
        let small = |value: u64| {
            let found = usize::try_from(value).ok();
            found.ok_or_else(|| file.wrong(name, value.to_string(), "a number of this machine"))
        };
        values.data.into_iter().map(small).collect()
    };
    let asked = file.u64("asked", &["m"])?;
    let asked = narrow(&file, "asked", asked)?;
    let places = file.u64("places", &["n"])?;
    let places = narrow(&file, "places", places)?;
    let sizes = file.u64("sizes", &["n", "2"])?;
    let images = places.len();
    if sizes.shape != [images, 2] {
        return Err(file.wrong(
            "sizes",
            format!("shape {:?}", sizes.shape),
            format!("[{images}, 2]"),
        ));
    }
    let side = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let (pairs, _) = sizes.data.as_chunks::<2>();
    let sizes = pairs.iter().map(|&[width, height]| (side(width), side(height))).collect();
    // Which of the two it is stands in no other place than the tensor's type: an f32 is read from both.
    let exact = file.f64("patch_scores", &["n", "P"])?;
    let is_wide = file.is_f64("patch_scores");
    let of_images = |file: &TensorFile, name: &str, shape: &[usize]| -> Result<usize> {
        match *shape {
            [found, values] if found == images => Ok(values),
            _ => Err(file.wrong(name, format!("shape {shape:?}"), format!("[{images}, …]"))),
        }
    };
    let patches = of_images(&file, "patch_scores", &exact.shape)?;
    let tokens = file.f32("class_tokens", &["n", "E"])?;
    let class_width = of_images(&file, "class_tokens", &tokens.shape)?;
    let mut left_out = Vec::new();
    if file.has("left_out") {
        let marks = file.marks("left_out", &["n", "P"])?;
        if of_images(&file, "left_out", &marks.shape)? != patches {
            let expected = format!("[{images}, {patches}]");
            return Err(file.wrong("left_out", format!("shape {:?}", marks.shape), expected));
        }
        left_out = marks.data.iter().map(|&mark| mark != 0).collect();
    }
    let part = Part {
        asked,
        places,
        sizes,
        bad,
        sixteen_bits,
        patches,
        scored: Scored {
            patch_scores: exact.data.iter().map(|&score| score as f32).collect(),
            left_out,
            exact_scores: is_wide.then_some(exact.data),
            class_tokens: tokens.data,
            class_width,
        },
    };
    if hash(&part, job) != known_hash {
        return Err(refuse("its values are not those that were written".into()));
    }
    Ok(part)
}

fn bad_as_json(bad: &[(PathBuf, String)]) -> String {
    let pairs: Vec<(String, &String)> =
        bad.iter().map(|(path, reason)| (path.display().to_string(), reason)).collect();
    serde_json::json!(pairs).to_string()
}

/// A hash of everything that is written.
fn hash(part: &Part, job: &str) -> String {
    let head = format!(
        "{job} {} {} {:?} {:?} {:?} {}",
        part.patches,
        part.sixteen_bits,
        part.asked,
        part.places,
        part.sizes,
        bad_as_json(&part.bad)
    );
    let scored = &part.scored;
    let scores: &[u8] = match &scored.exact_scores {
        Some(exact) => bytemuck::cast_slice(exact),
        None => bytemuck::cast_slice(&scored.patch_scores),
    };
    let marks: Vec<u8> = scored.left_out.iter().map(|&mark| mark.into()).collect();
    sha256_of_parts(&[head.as_bytes(), scores, bytemuck::cast_slice(&scored.class_tokens), &marks])
}
