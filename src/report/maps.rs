//! The anomaly maps of a run in one file, as they are made.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::atomic::PendingFile;
use crate::tensor_file::{Data, Kind, head, write_values};
use crate::{Error, ImageSize, Result};

/// The tensor's name.
const MAPS: &str = "anomaly_map";

/// The anomaly maps of a run, written one image at a time: tensor `anomaly_map` `[N, height, width]`.
///
/// The file gets its name when [`Self::finish`] has seen all N maps; dropped before, it leaves nothing.
#[derive(Debug)]
pub struct MapWriter {
    file: PendingFile,
    path: PathBuf,
    count: usize,
    size: ImageSize,
    written: usize,
}

impl MapWriter {
    /// Opens the file for `count` maps of `size`.
    ///
    /// # Errors
    /// [`Error::Io`] with the path.
    pub fn create(
        path: &Path,
        count: usize,
        size: ImageSize,
        metadata: &[(&str, String)],
    ) -> Result<Self> {
        let shape = [count, size.height, size.width];
        let head =
            head(&[(MAPS, Kind::F32, &shape)], metadata).map_err(Error::io("write", path))?;
        let mut file = PendingFile::create(path)?;
        file.writer().write_all(&head).map_err(|error| file.failed(error))?;
        Ok(Self { file, path: path.to_path_buf(), count, size, written: 0 })
    }

    /// Adds the next map, `[height, width]`.
    ///
    /// # Errors
    /// [`Error::Tensor`] for a map of another size or one too many; [`Error::Io`] with the path.
    pub fn push(&mut self, map: &[f32]) -> Result<()> {
        if map.len() != self.size.pixels() || self.written == self.count {
            let found = format!("map {} of {} values", self.written + 1, map.len());
            let expected = format!("{} maps of {}", self.count, self.size);
            return Err(mismatch(&self.path, found, expected));
        }
        let done = write_values(self.file.writer(), Data::F32(map));
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
            return Err(mismatch(&self.path, found, format!("{}", self.count)));
        }
        self.file.finish()
    }
}

fn mismatch(path: &Path, found: String, expected: String) -> Error {
    Error::Tensor { file: path.display().to_string(), tensor: MAPS.into(), found, expected }
}

#[cfg(test)]
mod tests {
    use super::*;
    use safetensors::SafeTensors;

    fn floats(bytes: &[u8]) -> Vec<f32> {
        bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
    }

    #[test]
    fn maps_stream_into_one_tensor() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("maps.safetensors");
        let mut writer = MapWriter::create(&path, 3, ImageSize::new(2, 3), &[]).expect("create");
        for image in 0..3u8 {
            writer.push(&[f32::from(image); 6]).expect("push");
        }
        assert!(writer.push(&[0.0; 6]).is_err(), "one too many");
        assert!(!path.exists(), "no name before it is whole");
        writer.finish().expect("finish");
        let bytes = std::fs::read(&path).expect("read");
        let file = SafeTensors::deserialize(&bytes).expect("safetensors");
        let read = file.tensor("anomaly_map").expect("tensor");
        assert_eq!(read.shape(), [3, 2, 3]);
        assert_eq!(floats(read.data())[6..13], [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0]);
    }

    #[test]
    fn an_incomplete_file_is_not_left() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("maps.safetensors");
        let mut writer = MapWriter::create(&path, 2, ImageSize::square(2), &[]).expect("create");
        assert!(writer.push(&[0.0; 3]).expect_err("size").to_string().contains("anomaly_map"));
        writer.push(&[0.0; 4]).expect("push");
        assert!(writer.finish().expect_err("missing").to_string().contains("1 maps"));
        assert_eq!(std::fs::read_dir(folder.path()).expect("list").count(), 0);
    }
}
