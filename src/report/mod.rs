//! The files of a run: heat maps, overlays, a contact sheet, tables and maps as numbers.
//!
//! Every file is written aside, in its own folder, and renamed when it is complete, so that a full disk or a stopped
//! program leaves either the whole file or none. Knows nothing of models or backends; never prints.

mod colour;
mod defects_json;
pub mod export;
mod font;
mod heat_map;
pub mod html;
mod image_file;
mod inspected;
#[cfg(feature = "libjpeg")]
mod jpeg;
mod maps;
mod metrics_json;
mod output_folder;
mod overlay;
mod plot;
mod results_xlsx;
mod run_json;
mod scores_csv;
mod sheet;
mod table;

pub use crate::atomic::{write_checked_file, write_file};
pub use colour::{Colour, jet, quantise, value_range};
pub use defects_json::{DEFECTS_VERSION, defects_json, region_json, write_defects_json};
pub use heat_map::{HeatMapScale, heat_map, heat_map_path, wants_heat_map};
pub use image_file::{write_grey_png, write_image};
pub use inspected::InspectedImage;
pub use maps::MapWriter;
pub use metrics_json::{metrics_json, metrics_object, write_metrics_json};
pub use output_folder::{OutputFolder, check_free};
pub use overlay::overlay;
pub use plot::{CurveKind, ScorePlot, write_curve_svg, write_scores_svg};
pub use results_xlsx::write_results_xlsx;
pub use run_json::write_json;
pub use scores_csv::{ScoreRow, ranks, write_scores_csv};
pub use sheet::{SheetCell, contact_sheet};
pub use table::metrics_table;
