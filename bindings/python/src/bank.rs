//! `musc.Bank`: references that are kept.

use std::path::PathBuf;
use std::sync::Arc;

use musc::inspect::Bank;
use numpy::{PyArray1, PyArray4, PyArrayMethods, ToPyArray};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::error::raise;
use crate::progress::run_on_pool;
use crate::settings;

/// References to compare images with, M of them: tokens in 16 bits, raw scores among themselves, the threshold, names, small
/// pictures, and the settings they were made with. Made by `Inspector.bank`, kept as one safetensors file.
#[pyclass(name = "Bank", module = "musc", frozen)]
pub struct PyBank(Arc<Bank>);

impl PyBank {
    pub fn new(bank: Bank) -> Self {
        PyBank(Arc::new(bank))
    }

    pub fn shared(&self) -> Arc<Bank> {
        Arc::clone(&self.0)
    }
}

#[pymethods]
impl PyBank {
    /// Reads a bank, of this package or of `musc-run bank build`.
    #[staticmethod]
    fn open(py: Python<'_>, path: PathBuf) -> PyResult<Self> {
        run_on_pool(py, None, |_| Bank::open(&path)).map(PyBank::new)
    }

    /// Writes the bank. The file is written aside and renamed when it is complete; one of that name is replaced.
    fn save(&self, py: Python<'_>, path: PathBuf) -> PyResult<()> {
        run_on_pool(py, None, |_| self.0.save(&path))
    }

    /// The same references with the threshold of another rule, or a threshold.
    fn with_rule(&self, rule: &Bound<'_, PyAny>) -> PyResult<Self> {
        let rule = settings::rule(Some(rule))?;
        Bank::clone(&self.0).with_rule(rule).map(PyBank::new).map_err(raise)
    }

    /// The references' names, paths as they were given.
    #[getter]
    fn names(&self) -> Vec<String> {
        self.0.names().to_vec()
    }

    /// Raw scores of the references among themselves. float32 [M].
    #[getter]
    fn raw_scores(&self, py: Python<'_>) -> Py<PyArray1<f32>> {
        self.0.raw_scores().to_pyarray(py).unbind()
    }

    /// An image with a raw score above it is defective.
    #[getter]
    fn threshold(&self) -> f64 {
        self.0.threshold()
    }

    /// The rule that the threshold comes from.
    #[getter]
    fn rule(&self) -> String {
        self.0.settings().rule.to_string()
    }

    /// Rows and columns of the patches of an image.
    #[getter]
    fn grid(&self) -> (usize, usize) {
        (self.0.grid().rows, self.0.grid().columns)
    }

    /// Small pictures of the references. uint8 [M, height, width, 3].
    #[getter]
    fn thumbnails(&self, py: Python<'_>) -> PyResult<Py<PyArray4<u8>>> {
        let thumbnails = self.0.thumbnails();
        let shape = [self.0.len(), thumbnails.size.height, thumbnails.size.width, 3];
        Ok(thumbnails.pixels.to_pyarray(py).reshape(shape)?.unbind())
    }

    /// The SHA-256 of the weights that it was made with.
    #[getter]
    fn weights_sha256(&self) -> &str {
        &self.0.settings().weights_sha256
    }

    /// The arguments with which an inspector fits the bank: `Inspector(**bank.settings)`, with the device of your choice beside
    /// them.
    #[getter]
    fn settings<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        settings::of_bank(py, self.0.settings())
    }

    fn __len__(&self) -> usize {
        self.0.len()
    }

    fn __repr__(&self) -> String {
        let settings = self.0.settings();
        format!(
            "<musc.Bank of {} references, {} at {}, threshold {:.4} ({})>",
            self.0.len(),
            settings.backbone,
            settings.input,
            self.0.threshold(),
            settings.rule
        )
    }
}
