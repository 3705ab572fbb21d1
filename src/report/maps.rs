//! Tensors to safetensors files, straight from where they lie.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;

use super::atomic::{PendingFile, write_file};
use crate::{Error, Result};

/// Values converted to bytes at a time.
const CHUNK: usize = 1 << 14;

/// An f32 tensor to be written.
#[derive(Debug, Clone, Copy)]
pub struct Tensor<'a> {
    /// Its name in the file.
    pub name: &'a str,
    /// Its dimensions.
    pub shape: &'a [usize],
    /// Its values, row-major.
    pub data: &'a [f32],
}

/// Writes f32 tensors to one file, in the order given.
///
/// # Errors
/// [`Error::Tensor`] when a shape does not fit its data or a name is given twice; [`Error::Io`] with the path.
pub fn write_tensors(
    path: &Path,
    tensors: &[Tensor<'_>],
    metadata: &[(&str, String)],
) -> Result<()> {
    let mut shapes: Vec<(&str, &[usize])> = Vec::with_capacity(tensors.len());
    for tensor in tensors {
        if elements(tensor.shape) != Some(tensor.data.len()) {
            let found = format!("{} values", tensor.data.len());
            return Err(mismatch(path, tensor.name, found, format!("shape {:?}", tensor.shape)));
        }
        if shapes.iter().any(|(name, _)| *name == tensor.name) {
            let found = String::from("a second tensor of that name");
            return Err(mismatch(path, tensor.name, found, String::from("one")));
        }
        shapes.push((tensor.name, tensor.shape));
    }
    let header = header(&shapes, metadata).map_err(Error::io("write", path))?;
    write_file(path, |writer| {
        writer.write_all(&header)?;
        tensors.iter().try_for_each(|tensor| write_values(writer, tensor.data))
    })
}

/// The anomaly maps of a run, written one image at a time: tensor `anomaly_map` `[N, size, size]`.
///
/// The file gets its name when [`Self::finish`] has seen all N maps; dropped before, it leaves nothing.
pub struct MapWriter {
    file: PendingFile,
    path: std::path::PathBuf,
    count: usize,
    size: usize,
    written: usize,
}

impl MapWriter {
    /// Opens the file for `count` maps of `size` × `size`.
    ///
    /// # Errors
    /// [`Error::Io`] with the path.
    pub fn create(
        path: &Path,
        count: usize,
        size: usize,
        metadata: &[(&str, String)],
    ) -> Result<Self> {
        let header = header(&[("anomaly_map", &[count, size, size])], metadata)
            .map_err(Error::io("write", path))?;
        let mut file = PendingFile::create(path)?;
        file.writer().write_all(&header).map_err(|error| file.failed(error))?;
        Ok(Self { file, path: path.to_path_buf(), count, size, written: 0 })
    }

    /// Adds the next map, `[size, size]`.
    ///
    /// # Errors
    /// [`Error::Tensor`] for a map of another size or one too many; [`Error::Io`] with the path.
    pub fn push(&mut self, map: &[f32]) -> Result<()> {
        if map.len() != self.size * self.size || self.written == self.count {
            let found = format!("map {} of {} values", self.written + 1, map.len());
            let expected = format!("{} maps of {} x {}", self.count, self.size, self.size);
            return Err(mismatch(&self.path, "anomaly_map", found, expected));
        }
        let done = write_values(self.file.writer(), map);
        done.map_err(|error| self.file.failed(error))?;
        self.written += 1;
        Ok(())
    }

    /// Completes the file.
    ///
    /// # Errors
    /// [`Error::Tensor`] when maps are missing; [`Error::Io`] with the path.
    pub fn finish(self) -> Result<()> {
        if self.written != self.count {
            let found = format!("{} maps", self.written);
            return Err(mismatch(&self.path, "anomaly_map", found, format!("{}", self.count)));
        }
        self.file.finish()
    }
}

fn mismatch(path: &Path, tensor: &str, found: String, expected: String) -> Error {
    Error::Tensor { file: path.display().to_string(), tensor: tensor.to_string(), found, expected }
}

fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |product, &dim| product.checked_mul(dim))
}

/// The file's head: its JSON's length (8 bytes, little endian) and the JSON, padded with blanks to a multiple of 8 so that
/// the values behind it are aligned.
fn header(tensors: &[(&str, &[usize])], metadata: &[(&str, String)]) -> io::Result<Vec<u8>> {
    let mut entries = serde_json::Map::new();
    if !metadata.is_empty() {
        let pairs: BTreeMap<&str, &str> =
            metadata.iter().map(|(key, value)| (*key, value.as_str())).collect();
        entries.insert(String::from("__metadata__"), serde_json::json!(pairs));
    }
    let mut offset = 0usize;
    for (name, shape) in tensors {
        let end = elements(shape)
            .and_then(|count| count.checked_mul(4))
            .and_then(|bytes| bytes.checked_add(offset))
            .ok_or_else(|| io::Error::other(format!("tensor `{name}` is too large")))?;
        let entry = serde_json::json!({
            "dtype": "F32", "shape": shape, "data_offsets": [offset, end]
        });
        entries.insert((*name).to_string(), entry);
        offset = end;
    }
    let mut json = serde_json::to_vec(&entries)?;
    json.resize(json.len().next_multiple_of(8), b' ');
    let mut header = (json.len() as u64).to_le_bytes().to_vec();
    header.append(&mut json);
    Ok(header)
}

fn write_values(writer: &mut impl Write, values: &[f32]) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(4 * CHUNK.min(values.len()));
    for chunk in values.chunks(CHUNK) {
        bytes.clear();
        bytes.extend(chunk.iter().flat_map(|value| value.to_le_bytes()));
        writer.write_all(&bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::{Dtype, SafeTensors};

    fn floats(bytes: &[u8]) -> Vec<f32> {
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }

    #[test]
    fn what_is_written_reads_back() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("t.safetensors");
        let long: Vec<f32> = (0..2 * CHUNK + 3).map(|i| i as f32 / 7.0).collect();
        let tensors = [
            Tensor { name: "a\"quoted", shape: &[3, 1], data: &[1.0, f32::NAN, -0.0] },
            Tensor { name: "empty", shape: &[0, 5], data: &[] },
            Tensor { name: "scalar", shape: &[], data: &[7.5] },
            Tensor { name: "long", shape: &[long.len()], data: &long },
        ];
        write_tensors(&path, &tensors, &[("size", String::from("98"))]).expect("write");
        let bytes = std::fs::read(&path).expect("read");
        let (length, metadata) = SafeTensors::read_metadata(&bytes).expect("header");
        assert_eq!((8 + length) % 8, 0);
        assert_eq!(metadata.metadata().as_ref().expect("metadata")["size"], "98");
        let file = SafeTensors::deserialize(&bytes).expect("safetensors");
        for tensor in tensors {
            let read = file.tensor(tensor.name).expect(tensor.name);
            assert_eq!((read.dtype(), read.shape()), (Dtype::F32, tensor.shape));
            let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&floats(read.data())), bits(tensor.data), "{}", tensor.name);
        }
    }

    #[test]
    fn maps_stream_into_one_tensor() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("maps.safetensors");
        let mut writer = MapWriter::create(&path, 3, 2, &[]).expect("create");
        for image in 0..3u8 {
            writer.push(&[f32::from(image); 4]).expect("push");
        }
        assert!(writer.push(&[0.0; 4]).is_err(), "one too many");
        assert!(!path.exists(), "no name before it is whole");
        writer.finish().expect("finish");
        let bytes = std::fs::read(&path).expect("read");
        let file = SafeTensors::deserialize(&bytes).expect("safetensors");
        let read = file.tensor("anomaly_map").expect("tensor");
        assert_eq!(read.shape(), [3, 2, 2]);
        assert_eq!(floats(read.data())[4..9], [1.0, 1.0, 1.0, 1.0, 2.0]);
    }

    #[test]
    fn an_incomplete_file_is_not_left() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("maps.safetensors");
        let mut writer = MapWriter::create(&path, 2, 2, &[]).expect("create");
        assert!(writer.push(&[0.0; 3]).expect_err("size").to_string().contains("anomaly_map"));
        writer.push(&[0.0; 4]).expect("push");
        assert!(writer.finish().expect_err("missing").to_string().contains("1 maps"));
        assert_eq!(std::fs::read_dir(folder.path()).expect("list").count(), 0);
    }

    #[test]
    fn shapes_that_do_not_fit_are_named() {
        let path = Path::new("never.safetensors");
        let bad = Tensor { name: "t", shape: &[2, 2], data: &[0.0; 3] };
        assert!(write_tensors(path, &[bad], &[]).expect_err("shape").to_string().contains("`t`"));
        let one = Tensor { name: "t", shape: &[1], data: &[0.0] };
        assert!(write_tensors(path, &[one, one], &[]).is_err());
        let huge = Tensor { name: "t", shape: &[usize::MAX, 2], data: &[] };
        assert!(write_tensors(path, &[huge], &[]).is_err());
        assert!(!path.exists());
    }
}
