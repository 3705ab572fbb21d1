//! `results.xlsx`, as the authors' program lays it out.

use std::io;
use std::path::Path;

use rust_xlsxwriter::{Workbook, XlsxError};

use crate::atomic::write_file;
use crate::metrics::{ClassMetrics, merge_mean};
use crate::{Error, Result};

/// The sheet's name.
const SHEET: &str = "MuSc_results";
/// Headers from column B on.
const HEADERS: [&str; 7] = ["auroc_px", "f1_px", "ap_px", "aupro", "auroc_sp", "f1_sp", "ap_sp"];

/// Writes the workbook: headers in row 1, the classes in column A from row 2, the mean behind them; figures in percent, `n/a` for one
/// without meaning (the authors write 0 and count it in the mean).
///
/// # Errors
/// [`Error::Io`] with the path.
pub fn write_results_xlsx(path: &Path, classes: &[ClassMetrics]) -> Result<()> {
    let bytes = workbook(classes).map_err(|error| {
        let source = match error {
            XlsxError::IoError(source) => source,
            other => io::Error::other(other),
        };
        Error::io("write", path)(source)
    })?;
    write_file(path, |writer| writer.write_all(&bytes))
}

fn workbook(classes: &[ClassMetrics]) -> Result<Vec<u8>, XlsxError> {
    let mut workbook = Workbook::new();
    let sheet = workbook.add_worksheet().set_name(SHEET)?;
    for (column, header) in (1u16..).zip(HEADERS) {
        sheet.write_string(0, column, header)?;
    }
    let mean = merge_mean(classes);
    for (row, class) in (1u32..).zip(classes.iter().chain([&mean])) {
        sheet.write_string(row, 0, &class.class)?;
        let figures = [
            class.pixel.auroc,
            class.pixel.f1_max,
            class.pixel.ap,
            class.pixel.aupro,
            class.image.auroc,
            class.image.f1_max,
            class.image.ap,
        ];
        for (column, figure) in (1u16..).zip(figures) {
            match figure {
                Some(figure) => sheet.write_number(row, column, figure * 100.0)?,
                None => sheet.write_string(row, column, "n/a")?,
            };
        }
    }
    workbook.save_to_buffer()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{ImageMetrics, PixelMetrics};

    #[test]
    fn a_workbook_is_written() {
        let classes = [ClassMetrics {
            class: String::from("bottle"),
            image: ImageMetrics { auroc: Some(0.985), ..Default::default() },
            pixel: PixelMetrics { auroc: Some(0.5), ..Default::default() },
            ..Default::default()
        }];
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("results.xlsx");
        write_results_xlsx(&path, &classes).expect("write");
        let bytes = std::fs::read(&path).expect("read");
        // A zip archive that names its one sheet.
        assert!(bytes.starts_with(b"PK\x03\x04"));
        let name = b"xl/worksheets/sheet1.xml";
        assert!(bytes.windows(name.len()).any(|window| window == name));
        let failed = write_results_xlsx(&path.join("x.xlsx"), &classes).expect_err("not a folder");
        assert!(failed.to_string().contains("x.xlsx"));
    }
}
