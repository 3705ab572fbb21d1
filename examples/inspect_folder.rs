//! What `musc-run FOLDER` does, in a few lines: `cargo run --release --example inspect_folder photos output`.

use std::path::Path;

use musc::inspect::{Batch, Inspector, PictureFiles};
use musc::report::{ScoreRow, heat_map_path, write_scores_csv};

fn main() -> musc::Result<()> {
    let mut words = std::env::args().skip(1);
    let folder = words.next().unwrap_or_else(|| "assets/textile".into());
    let output = words.next().unwrap_or_else(|| "output/example".into());
    let output = Path::new(&output);
    let batch = Batch::folder(&folder)?;
    let inspector = Inspector::builder().backbone("dinov2_vits14").size(518).build()?;
    let mut inspection = inspector.inspect(&batch, &())?;
    let mut rows: Vec<ScoreRow> = Vec::new();
    let mut files = PictureFiles::default();
    let mut maps = Vec::new();
    for (at, sample) in inspection.samples().iter().enumerate() {
        let (score, raw) = (inspection.scores()[at], inspection.raw_scores()[at]);
        rows.push(ScoreRow::new(&sample.path, batch.name(), sample.label, score, raw));
        maps.push(heat_map_path(&output.join("maps"), "", &sample.kind, &sample.path)?);
    }
    (files.heat_maps, files.sheet) = (Some(maps), Some(output.join("sheet.png")));
    inspector.write_pictures(&batch, &mut inspection, &files, &())?;
    write_scores_csv(&output.join("scores.csv"), &rows)
}
