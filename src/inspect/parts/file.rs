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

use super::part::{Part, PartFiles, Scored};
use crate::model::sha256_of_parts;
use crate::tensor_file::{Tensor, TensorFile, printable, write_tensors};
use crate::{Error, Result};

const FORMAT: (&str, &str) = ("format", "musc-part");
const VERSION: (&str, &str) = ("version", "1");
pub(super) const JOB: &str = "job";
pub(super) const HASH: &str = "sha256";

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
    let files = Numbers::of(&part.files);
    let marks: Vec<u8> = part.scored.left_out.iter().map(|&mark| mark.into()).collect();
    let (images, patches) = (part.len(), part.patches);
    let (of_scores, of_tokens) = ([images, patches], [images, part.scored.class_width]);
    let mut tensors = files.tensors();
    tensors.push(match &part.scored.exact_scores {
        Some(exact) => Tensor::f64("patch_scores", &of_scores, exact),
        None => Tensor::f32("patch_scores", &of_scores, &part.scored.patch_scores),
    });
    tensors.push(Tensor::f32("class_tokens", &of_tokens, &part.scored.class_tokens));
    if !marks.is_empty() {
        tensors.push(Tensor::u8("left_out", &of_scores, &marks));
    }
    let mut metadata = vec![
        (FORMAT.0, FORMAT.1.to_string()),
        (VERSION.0, VERSION.1.to_string()),
        (JOB, job.to_string()),
        (HASH, hash(part, job)),
    ];
    metadata.extend(metadata_of(&part.files));
    write_tensors(path, &tensors, &metadata)
}

/// The numbers of a part's files, as they lie in tensors.
pub(super) struct Numbers {
    asked: Vec<u64>,
    places: Vec<u64>,
    sizes: Vec<u64>,
    shapes: ([usize; 1], [usize; 2]),
}

impl Numbers {
    pub fn of(files: &PartFiles) -> Self {
        let wide = |values: &[usize]| values.iter().map(|&value| value as u64).collect();
        Numbers {
            asked: wide(&files.asked),
            places: wide(&files.places),
            sizes: files.sizes.iter().flat_map(|&(w, h)| [w.into(), h.into()]).collect(),
            shapes: ([files.asked.len()], [files.places.len(), 2]),
        }
    }

    pub fn tensors(&self) -> Vec<Tensor<'_>> {
        vec![
            Tensor::u64("asked", &self.shapes.0, &self.asked),
            Tensor::u64("places", &self.shapes.1[..1], &self.places),
            Tensor::u64("sizes", &self.shapes.1, &self.sizes),
        ]
    }
}

/// What a part's files leave in the metadata.
pub(super) fn metadata_of(files: &PartFiles) -> [(&'static str, String); 2] {
    [("sixteen_bits", files.sixteen_bits.to_string()), ("bad", bad_as_json(&files.bad))]
}

/// Opens a file of a job, of this format and version.
pub(super) fn open(
    path: &Path,
    (what, format, version): (&str, (&str, &str), (&str, &str)),
    job: &str,
) -> Result<TensorFile> {
    let file = TensorFile::open(path)?;
    for (key, expected) in [format, version, (JOB, job)] {
        let found = file.metadata(key).unwrap_or("nothing");
        if found != expected {
            let reason = format!(
                "no {what} of this job: its `{key}` is {}, expected {expected}",
                printable(found)
            );
            return Err(Error::Dataset { path: path.to_path_buf(), reason });
        }
    }
    Ok(file)
}

/// What the metadata of a file say under a key.
pub(super) fn told(file: &TensorFile, key: &str) -> Result<String> {
    file.metadata(key).map(String::from).ok_or_else(|| {
        let reason = format!("its metadata have no `{key}`");
        Error::Dataset { path: file.path().to_path_buf(), reason }
    })
}

/// What a file of a part says of the files that were read.
pub(super) fn read_files(file: &mut TensorFile) -> Result<PartFiles> {
    let path = file.path().to_path_buf();
    let refuse = |reason: String| Error::Dataset { path: path.clone(), reason };
    let sixteen_bits = told(file, "sixteen_bits")?;
    let sixteen_bits = sixteen_bits.parse().map_err(|_| {
        refuse(format!("its `sixteen_bits` is {}, expected a number", printable(&sixteen_bits)))
    })?;
    let bad: Vec<(PathBuf, String)> = serde_json::from_str(&told(file, "bad")?)
        .map_err(|error| refuse(format!("its `bad` is no list of files: {error}")))?;
    let mut numbers = |name: &str, dim: &str| -> Result<Vec<usize>> {
        let values = file.u64(name, &[dim])?;
        let small = |value: u64| {
            let found = usize::try_from(value).ok();
            found.ok_or_else(|| file.wrong(name, value.to_string(), "a number of this machine"))
        };
        values.data.into_iter().map(small).collect()
    };
    let (asked, places) = (numbers("asked", "m")?, numbers("places", "n")?);
    let sizes = file.u64("sizes", &["n", "2"])?;
    if sizes.shape != [places.len(), 2] {
        let expected = format!("[{}, 2]", places.len());
        return Err(file.wrong("sizes", format!("shape {:?}", sizes.shape), expected));
    }
    let side = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
    let (pairs, _) = sizes.data.as_chunks::<2>();
    let sizes = pairs.iter().map(|&[width, height]| (side(width), side(height))).collect();
    Ok(PartFiles { asked, places, sizes, bad, sixteen_bits })
}

/// Reads a part of a job, and compares it with its own hash.
pub(super) fn read(path: &Path, job: &str) -> Result<Part> {
    let mut file = open(path, ("part", FORMAT, VERSION), job)?;
    let (known_hash, files) = (told(&file, HASH)?, read_files(&mut file)?);
    let images = files.places.len();
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
        files,
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
        return Err(damaged(path, "values"));
    }
    Ok(part)
}

fn bad_as_json(bad: &[(PathBuf, String)]) -> String {
    let pairs: Vec<(String, &String)> =
        bad.iter().map(|(path, reason)| (path.display().to_string(), reason)).collect();
    serde_json::json!(pairs).to_string()
}

/// The error of a file whose hash is another.
pub(super) fn damaged(path: &Path, what: &str) -> Error {
    let reason = format!("its {what} are not those that were written");
    Error::Dataset { path: path.to_path_buf(), reason }
}

/// A hash of everything that is written.
fn hash(part: &Part, job: &str) -> String {
    let head = format!("{} {}", hash_of_files(&part.files, job), part.patches);
    let scored = &part.scored;
    let scores: &[u8] = match &scored.exact_scores {
        Some(exact) => bytemuck::cast_slice(exact),
        None => bytemuck::cast_slice(&scored.patch_scores),
    };
    let marks: Vec<u8> = scored.left_out.iter().map(|&mark| mark.into()).collect();
    sha256_of_parts(&[head.as_bytes(), scores, bytemuck::cast_slice(&scored.class_tokens), &marks])
}

/// A hash of what was read of a part's files.
pub(super) fn hash_of_files(files: &PartFiles, job: &str) -> String {
    let PartFiles { asked, places, sizes, bad, sixteen_bits } = files;
    let words = format!("{job} {sixteen_bits} {asked:?} {places:?} {sizes:?} {}", bad_as_json(bad));
    sha256_of_parts(&[words.as_bytes()])
}
