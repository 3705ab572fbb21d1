//! `musc-run rscin`: image scores re-scored by class tokens, on this program's scores or any other's.

use std::io::Read;
use std::path::{Path, PathBuf};

use musc::model::pickle::{is_pickle, read_class_features};
use musc::report::write_file;
use musc::scoring::rscin::{RscinOptions, rscin as rescore};
use musc::tensor_file::{Tensor, TensorFile, Values, write_tensors};
use musc::{Error, Result};

use super::{note_large_k, report};
use crate::args::RscinArgs;
use crate::run::config::{MachineConfig, may_write, neighbours};
use crate::shell::Stop;

/// Columns of a score table that are read, the first that is there.
const SCORE_COLUMNS: [&str; 2] = ["raw_score", "score"];

/// Runs the command.
pub fn rscin(args: RscinArgs) -> Result<(), Stop> {
    let machine = MachineConfig::new(args.machine, None).map_err(Stop::Usage)?;
    machine.set_threads()?;
    let mut k = neighbours("--k", args.k).map_err(Stop::Usage)?;
    if !args.exact_k && !k.contains(&1) {
        k.insert(0, 1);
    }
    may_write(&args.output, args.overwrite).map_err(Stop::Usage)?;
    let table = if is_csv(&args.scores) { Some(Table::read(&args.scores)?) } else { None };
    let scores = match &table {
        Some(table) => table.scores()?,
        None => TensorFile::open(&args.scores)?.f64("scores", &["N"])?.data,
    };
    let category = args.class_name.as_deref();
    let pickled = starts_as_pickle(&args.class_tokens)?;
    if let (Some(name), false) = (category, pickled) {
        let found = format!("{name}, beside {}", args.class_tokens.display());
        let expected = "it with class tokens that are kept by category, in a pickle";
        return Err(Stop::Usage(Error::invalid("--class-name", found, expected)));
    }
    let tokens = if pickled {
        let features = read_class_features(&args.class_tokens, category)?;
        Values::new(vec![features.images, features.width], features.tokens)
    } else if is_csv(&args.class_tokens) {
        read_rows(&args.class_tokens)?
    } else {
        TensorFile::open(&args.class_tokens)?.f32("class_tokens", &["N", "E"])?
    };
    let (images, width) = (tokens.shape[0], tokens.shape[1]);
    if images != scores.len() {
        return Err(Error::invalid(
            "number of class tokens",
            format!("{images} in {}", args.class_tokens.display()),
            format!("{}, one a score in {}", scores.len(), args.scores.display()),
        )
        .into());
    }
    note_large_k(&k, images);
    let options = RscinOptions::default().with_k(k).with_similarity(args.similarity.into());
    let rescored = rescore(&scores, &tokens.data, width, &options)?;
    if is_csv(&args.output) {
        let table = table.unwrap_or_else(|| Table::of_scores(&args.scores, &scores));
        table.write_with(&args.output, &rescored)?;
    } else {
        let shape = [images];
        let single: Vec<f32> = rescored.iter().map(|&score| score as f32).collect();
        let tensor = Tensor::f32("rescored", &shape, &single);
        write_tensors(&args.output, &[tensor], &[])?;
    }
    Ok(report(&machine, &args.output, &[("rescored".into(), vec![images])])?)
}

/// Looks at a file's first bytes; names such as `.dat` say nothing.
fn starts_as_pickle(path: &Path) -> Result<bool> {
    let mut start = Vec::new();
    let file = std::fs::File::open(path).map_err(Error::io("read", path))?;
    file.take(16).read_to_end(&mut start).map_err(Error::io("read", path))?;
    Ok(is_pickle(&start))
}

fn is_csv(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"))
}

fn csv_error(path: &Path) -> impl Fn(csv::Error) -> Error {
    move |reason| Error::Dataset {
        path: path.to_path_buf(),
        reason: format!("not a readable table: {reason}"),
    }
}

/// A table with a line of names.
pub(crate) struct Table {
    path: PathBuf,
    names: csv::StringRecord,
    rows: Vec<csv::StringRecord>,
}

impl Table {
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read(path).map_err(Error::io("read", path))?;
        let mut reader = csv::Reader::from_reader(text.as_slice());
        let names = reader.headers().map_err(csv_error(path))?.clone();
        let rows = reader.records().collect::<Result<_, _>>().map_err(csv_error(path))?;
        Ok(Table { path: path.to_path_buf(), names, rows })
    }

    fn of_scores(path: &Path, scores: &[f64]) -> Self {
        Table {
            path: path.to_path_buf(),
            names: csv::StringRecord::from(vec!["raw_score"]),
            rows: scores
                .iter()
                .map(|score| csv::StringRecord::from(vec![score.to_string()]))
                .collect(),
        }
    }

    pub(crate) fn scores(&self) -> Result<Vec<f64>> {
        let column = SCORE_COLUMNS
            .iter()
            .find_map(|wanted| self.names.iter().position(|name| name.trim() == *wanted))
            .ok_or_else(|| Error::Dataset {
                path: self.path.clone(),
                reason: format!(
                    "columns {}; expected one called {}",
                    self.names.iter().collect::<Vec<_>>().join(", "),
                    SCORE_COLUMNS.join(" or ")
                ),
            })?;
        self.rows
            .iter()
            .enumerate()
            .map(|(row, record)| {
                number(&self.path, row + 2, record.get(column).unwrap_or_default())
            })
            .collect()
    }

    /// Writes the table with one more column, `rescored`.
    fn write_with(&self, path: &Path, rescored: &[f64]) -> Result<()> {
        let mut writer = csv::Writer::from_writer(Vec::new());
        let mut names = self.names.clone();
        names.push_field("rescored");
        writer.write_record(&names).map_err(csv_error(path))?;
        for (row, value) in self.rows.iter().zip(rescored) {
            let mut row = row.clone();
            row.push_field(&value.to_string());
            writer.write_record(&row).map_err(csv_error(path))?;
        }
        let text =
            writer.into_inner().map_err(|failed| Error::io("write", path)(failed.into_error()))?;
        write_file(path, |writer| writer.write_all(&text))
    }
}

/// A table of nothing but numbers, a row an image; a first line that holds none is taken for names.
pub(crate) fn read_rows(path: &Path) -> Result<Values<f32>> {
    let text = std::fs::read(path).map_err(Error::io("read", path))?;
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_slice());
    let (mut data, mut images, mut width) = (Vec::new(), 0, 0);
    for (line, record) in reader.records().enumerate() {
        let record = record.map_err(csv_error(path))?;
        if line == 0 && record.iter().all(|cell| cell.trim().parse::<f32>().is_err()) {
            continue;
        }
        for cell in &record {
            data.push(number(path, line + 1, cell)? as f32);
        }
        width = record.len();
        images += 1;
    }
    Ok(Values::new(vec![images, width], data))
}

fn number(path: &Path, line: usize, cell: &str) -> Result<f64> {
    cell.trim().parse().map_err(|_| Error::Dataset {
        path: path.to_path_buf(),
        reason: format!("line {line}: found `{cell}`, expected a number"),
    })
}
