//! The extension module `musc._musc`, of which the package `musc` is made: the library's job and steps on NumPy's arrays.
//!
//! | file | what |
//! |---|---|
//! | `settings.rs` | Python's arguments as the library's settings, and back |
//! | `batch.rs`, `arrays.rs` | images and tokens from Python |
//! | `inspector.rs`, `inspection.rs`, `bank.rs` | the classes |
//! | `functions.rs`, `metrics.rs` | the functions |
//! | `notebook.rs` | an inspection as HTML |
//! | `progress.rs` | work without the interpreter's lock, and how it is stopped |
//! | `process.rs` | threads, and forks that have none |
//! | `error.rs` | exceptions |
//!
//! No step of the method is here: what Python gets is what the library computes, bit for bit.

mod arrays;
mod bank;
mod batch;
// The one file for everything that has the default weights inside.
#[path = "../../../cli/src/embedded.rs"]
mod embedded;
mod error;
mod functions;
mod inspection;
mod inspector;
mod metrics;
mod notebook;
mod process;
mod progress;
mod settings;

use pyo3::prelude::*;

#[pymodule]
fn _musc(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add("built_in_weights", embedded::built_in_weights().is_some())?;
    module.add("Error", module.py().get_type::<error::Error>())?;
    module.add_class::<inspector::PyInspector>()?;
    module.add_class::<inspection::PyInspection>()?;
    module.add_class::<inspection::PyRegion>()?;
    module.add_class::<bank::PyBank>()?;
    module.add_function(wrap_pyfunction!(functions::mutual_scores, module)?)?;
    module.add_function(wrap_pyfunction!(functions::rscin, module)?)?;
    module.add_function(wrap_pyfunction!(functions::threshold, module)?)?;
    module.add_function(wrap_pyfunction!(functions::anomaly_maps, module)?)?;
    module.add_function(wrap_pyfunction!(functions::backbones, module)?)?;
    module.add_function(wrap_pyfunction!(functions::download_weights, module)?)?;
    module.add_function(wrap_pyfunction!(metrics::image_level, module)?)?;
    module.add_function(wrap_pyfunction!(metrics::pixel_level, module)?)?;
    Ok(())
}
