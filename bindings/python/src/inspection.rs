//! `musc.Inspection`: what came out, as arrays.

use std::path::PathBuf;
use std::sync::Arc;

use musc::ImageSize;
use musc::defects::Region;
use musc::inspect::{Bank, Inspection};
use musc::progress::go_on;
use musc::report::ranks;
use musc::scoring::decision::{DecisionRule, threshold};
use numpy::{PyArray1, PyArray2, PyArray3, PyArrayMethods, ToPyArray};
use pyo3::exceptions::PyImportError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList};
use rayon::prelude::*;

use crate::error::{raise, wrong_value};
use crate::notebook::{self, Pictures};
use crate::progress::run_on_pool;
use crate::settings;

/// Scores with a decision for each image.
#[derive(Debug, Clone)]
pub struct Decided {
    pub inspection: Arc<Inspection>,
    pub rule: DecisionRule,
    /// What the images were compared with, where that was not each other.
    of_bank: Option<Arc<Bank>>,
    /// The threshold, where all images share one.
    pub threshold: Option<f64>,
    pub thresholds: Vec<f64>,
    pub pictures: Arc<Pictures>,
}

impl Decided {
    /// Decides by the threshold of the bank that the images were compared with, else by a rule on their own scores. On rayon's
    /// current pool.
    pub fn new(
        inspection: Arc<Inspection>,
        rule: DecisionRule,
        of_bank: Option<Arc<Bank>>,
        pictures: Arc<Pictures>,
    ) -> musc::Result<Self> {
        let rule = match &of_bank {
            Some(bank) if of_scores(rule) => bank.settings().rule,
            _ => rule,
        };
        let known = of_bank.as_ref().filter(|_| of_scores(rule)).map(|bank| bank.threshold());
        Self::with(inspection, rule, of_bank, known, pictures)
    }

    /// The same scores, decided by another rule.
    fn again(&self, rule: DecisionRule) -> musc::Result<Self> {
        let known = match &self.of_bank {
            Some(bank) if of_scores(rule) => Some(threshold(rule, bank.raw_scores(), &[])?),
            _ => None,
        };
        let (inspection, pictures) = (Arc::clone(&self.inspection), Arc::clone(&self.pictures));
        Self::with(inspection, rule, self.of_bank.clone(), known, pictures)
    }

    fn with(
        inspection: Arc<Inspection>,
        rule: DecisionRule,
        of_bank: Option<Arc<Bank>>,
        known: Option<f64>,
        pictures: Arc<Pictures>,
    ) -> musc::Result<Self> {
        let thresholds = match known {
            Some(known) => vec![known; inspection.len()],
            None => inspection.thresholds(rule)?,
        };
        let threshold = if rule.is_per_image() { None } else { thresholds.first().copied() };
        Ok(Decided { inspection, rule, of_bank, threshold, thresholds, pictures })
    }

    /// Whether an image is defective.
    pub fn is_defective(&self, image: usize) -> bool {
        f64::from(self.inspection.raw_scores()[image]) > self.thresholds[image]
    }
}

/// Whether a rule looks at raw scores alone, so that those of a bank will do.
fn of_scores(rule: DecisionRule) -> bool {
    !matches!(rule, DecisionRule::F1 | DecisionRule::Mebin)
}

/// What a batch of N images came to, in its order, as NumPy arrays.
///
/// Arrays are made when they are asked for first and are the same object from then on. With L patches an image of a grid of
/// rows x columns (with tiles those of all tiles, one tile behind the other), a map of h x w pixels, class tokens of width E.
#[pyclass(name = "Inspection", module = "musc", frozen)]
pub struct PyInspection {
    decided: Decided,
    scores: PyOnceLock<Py<PyArray1<f64>>>,
    raw_scores: PyOnceLock<Py<PyArray1<f32>>>,
    patch_scores: PyOnceLock<Py<PyArray2<f32>>>,
    class_tokens: PyOnceLock<Py<PyArray2<f32>>>,
    maps: PyOnceLock<Py<PyArray3<f32>>>,
    regions: PyOnceLock<Py<PyList>>,
}

impl PyInspection {
    pub fn new(decided: Decided) -> Self {
        PyInspection {
            decided,
            scores: PyOnceLock::new(),
            raw_scores: PyOnceLock::new(),
            patch_scores: PyOnceLock::new(),
            class_tokens: PyOnceLock::new(),
            maps: PyOnceLock::new(),
            regions: PyOnceLock::new(),
        }
    }

    fn inner(&self) -> &Inspection {
        &self.decided.inspection
    }

    fn image(&self, image: isize) -> PyResult<usize> {
        let count = self.inner().len();
        // As with a list, -1 is the last.
        let at = if image < 0 { image.checked_add_unsigned(count) } else { Some(image) };
        at.and_then(|at| usize::try_from(at).ok()).filter(|&at| at < count).ok_or_else(|| {
            pyo3::exceptions::PyIndexError::new_err(format!(
                "image: found {image}, expected one of {count}"
            ))
        })
    }
}

#[pymethods]
impl PyInspection {
    /// Scores after RsCIN, higher where more anomalous; the raw scores where there was no re-scoring. float64 [N].
    #[getter]
    fn scores(&self, py: Python<'_>) -> Py<PyArray1<f64>> {
        self.scores.get_or_init(py, || self.inner().scores().to_pyarray(py).unbind()).clone_ref(py)
    }

    /// The largest value of each image's anomaly map: what is held against the threshold. float32 [N].
    #[getter]
    fn raw_scores(&self, py: Python<'_>) -> Py<PyArray1<f32>> {
        let make = || self.inner().raw_scores().to_pyarray(py).unbind();
        self.raw_scores.get_or_init(py, make).clone_ref(py)
    }

    /// The score of each patch, a distance from 0 to 2. float32 [N, L].
    #[getter]
    fn patch_scores(&self, py: Python<'_>) -> PyResult<Py<PyArray2<f32>>> {
        rows(py, &self.patch_scores, self.inner().len(), |at| self.inner().patch_scores(at).0)
    }

    /// The class token of each image. float32 [N, E].
    #[getter]
    fn class_tokens(&self, py: Python<'_>) -> PyResult<Py<PyArray2<f32>>> {
        rows(py, &self.class_tokens, self.inner().len(), |at| self.inner().class_token(at))
    }

    /// The patches that are left out (padding, outside the region that is looked at); None where none is. bool [N, L].
    #[getter]
    fn left_out(&self, py: Python<'_>) -> PyResult<Option<Py<PyArray2<bool>>>> {
        let inner = self.inner();
        if (0..inner.len()).all(|at| inner.left_out(at).is_empty()) {
            return Ok(None);
        }
        rows(py, &PyOnceLock::new(), inner.len(), |at| inner.left_out(at)).map(Some)
    }

    /// The anomaly maps. float32 [N, h, w].
    #[getter]
    fn maps(&self, py: Python<'_>) -> PyResult<Py<PyArray3<f32>>> {
        let make = || -> PyResult<Py<PyArray3<f32>>> {
            let (inner, size) = (self.inner(), self.inner().map_size());
            let maps = run_on_pool(py, None, |progress| {
                let mut maps = vec![0f32; inner.len() * size.pixels()];
                let each = maps.par_chunks_exact_mut(size.pixels()).enumerate();
                each.try_for_each(|(at, map)| {
                    go_on(progress)?;
                    inner.map(at, size, map)
                })?;
                Ok(maps)
            })?;
            let maps = PyArray1::from_vec(py, maps);
            Ok(maps.reshape([inner.len(), size.height, size.width])?.unbind())
        };
        Ok(self.maps.get_or_try_init(py, make)?.clone_ref(py))
    }

    /// The anomaly map of an image at any size, such as the image's own. float32 [height, width].
    #[pyo3(signature = (image, size=None))]
    fn map(
        &self,
        py: Python<'_>,
        image: isize,
        size: Option<(i64, i64)>,
    ) -> PyResult<Py<PyArray2<f32>>> {
        let (inner, at) = (self.inner(), self.image(image)?);
        let size = match size {
            None => inner.map_size(),
            Some((height @ 1.., width @ 1..)) => {
                ImageSize::new(settings::count("size", height)?, settings::count("size", width)?)
            }
            Some(other) => {
                return Err(wrong_value("size", format!("{other:?}"), "(height, width)"));
            }
        };
        let map = py.detach(|| {
            let mut map = vec![0f32; size.pixels()];
            inner.map(at, size, &mut map).map(|()| map)
        });
        let map = PyArray1::from_vec(py, map.map_err(raise)?);
        Ok(map.reshape([size.height, size.width])?.unbind())
    }

    /// The images' paths as they were given; None where arrays were.
    #[getter]
    fn paths(&self) -> Option<Vec<PathBuf>> {
        let samples = self.inner().samples();
        let paths = || samples.iter().map(|sample| sample.path.clone()).collect();
        self.decided.pictures.are_files().then(paths)
    }

    /// The images' names: paths, or what arrays are called.
    #[getter]
    pub fn names(&self) -> Vec<String> {
        self.inner().samples().iter().map(|sample| sample.path.display().to_string()).collect()
    }

    /// What is known of each image: True where it is defective, False where it is normal, None where nothing is known.
    #[getter]
    fn labels(&self) -> Vec<Option<bool>> {
        self.inner().samples().iter().map(|sample| sample.label).collect()
    }

    /// "NG" for each image that is defective, by its raw score, else "OK".
    #[getter]
    fn decisions(&self) -> Vec<&'static str> {
        let word = |at| if self.decided.is_defective(at) { "NG" } else { "OK" };
        (0..self.inner().len()).map(word).collect()
    }

    /// Whether each image is defective. bool [N].
    #[getter]
    fn defective(&self, py: Python<'_>) -> Py<PyArray1<bool>> {
        let defective = (0..self.inner().len()).map(|at| self.decided.is_defective(at));
        PyArray1::from_iter(py, defective).unbind()
    }

    /// The threshold that raw scores are held against; None where each image has its own.
    #[getter]
    fn threshold(&self) -> Option<f64> {
        self.decided.threshold
    }

    /// The threshold of each image. float64 [N].
    #[getter]
    fn thresholds(&self, py: Python<'_>) -> Py<PyArray1<f64>> {
        self.decided.thresholds.to_pyarray(py).unbind()
    }

    /// The rule that the threshold comes from.
    #[getter]
    fn rule(&self) -> String {
        self.decided.rule.to_string()
    }

    /// The rank of each image by its score, 1 the most anomalous.
    #[getter]
    fn ranks(&self) -> Vec<usize> {
        ranks(self.inner().scores())
    }

    /// For each image the parts of it that are above its threshold, worst first; none where it is OK.
    #[getter]
    fn regions(&self, py: Python<'_>) -> PyResult<Py<PyList>> {
        let make = || -> PyResult<Py<PyList>> {
            let (inner, thresholds) = (self.inner(), &self.decided.thresholds);
            let found = run_on_pool(py, None, |_| inner.inspected(thresholds))?;
            let lists = found
                .into_iter()
                .map(|image| image.regions.into_iter().map(PyRegion).collect::<Vec<_>>());
            Ok(PyList::new(py, lists.collect::<Vec<_>>())?.unbind())
        };
        Ok(self.regions.get_or_try_init(py, make)?.clone_ref(py))
    }

    /// The same scores with another decision: a rule such as "shortest-half", "share:0.1" or "mebin", or a threshold. Nothing is
    /// computed anew but the threshold; of images that were compared with a bank alone it comes from the bank's raw scores.
    fn decide(&self, py: Python<'_>, rule: &Bound<'_, PyAny>) -> PyResult<Self> {
        let rule = settings::rule(Some(rule))?;
        let again = run_on_pool(py, None, |_| self.decided.again(rule))?;
        Ok(PyInspection::new(again))
    }

    /// What is worth saying to a person.
    #[getter]
    fn notes(&self) -> Vec<String> {
        self.inner().notes().iter().map(|note| note.to_string()).collect()
    }

    /// Files that could not be read, with why; empty unless they were to be skipped.
    #[getter]
    fn skipped(&self) -> Vec<(PathBuf, String)> {
        self.inner().skipped().to_vec()
    }

    /// Rows and columns of the patches of an image, or of a tile.
    #[getter]
    fn grid(&self) -> (usize, usize) {
        (self.inner().grid().rows, self.inner().grid().columns)
    }

    /// Height and width at which images, or their tiles, went through the backbone.
    #[getter]
    fn input(&self) -> (usize, usize) {
        (self.inner().input().height, self.inner().input().width)
    }

    /// The neighbourhood sizes that RsCIN took; empty where there was no re-scoring.
    #[getter]
    fn k(&self) -> Vec<usize> {
        self.inner().rscin_k().to_vec()
    }

    /// The subsets that were scored on their own.
    #[getter]
    fn subsets(&self) -> usize {
        self.inner().subsets()
    }

    /// Seconds of each stage.
    #[getter]
    fn seconds<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let seconds = PyDict::new(py);
        for (stage, took) in self.inner().seconds() {
            let before = seconds.get_item(stage.name())?;
            let before: f64 = before.map_or(Ok(0.0), |before| before.extract())?;
            seconds.set_item(stage.name(), before + took)?;
        }
        Ok(seconds)
    }

    /// A table with a row an image: name, score, raw_score, rank, decision, threshold, label. Needs pandas.
    fn to_pandas<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let pandas = py.import("pandas").map_err(|reason| {
            let text = "to_pandas: pandas is not installed: pip install pandas";
            let error = PyImportError::new_err(text);
            error.set_cause(py, Some(reason));
            error
        })?;
        let columns = PyDict::new(py);
        columns.set_item("name", self.names())?;
        columns.set_item("score", self.scores(py))?;
        columns.set_item("raw_score", self.raw_scores(py))?;
        columns.set_item("rank", self.ranks())?;
        columns.set_item("decision", self.decisions())?;
        columns.set_item("threshold", self.thresholds(py))?;
        columns.set_item("label", self.labels())?;
        pandas.call_method1("DataFrame", (columns,))
    }

    fn _repr_html_(&self, py: Python<'_>) -> PyResult<String> {
        run_on_pool(py, None, |progress| notebook::page(&self.decided, progress))
    }

    fn __len__(&self) -> usize {
        self.inner().len()
    }

    fn __repr__(&self) -> String {
        let (count, rule) = (self.inner().len(), self.decided.rule);
        let defective = (0..count).filter(|&at| self.decided.is_defective(at)).count();
        match self.decided.threshold {
            Some(above) => {
                format!(
                    "<musc.Inspection of {count} images, {defective} NG above {above:.4} ({rule})>"
                )
            }
            None => format!("<musc.Inspection of {count} images, {defective} NG ({rule})>"),
        }
    }
}

/// Rows of equal length as one array, kept.
fn rows<'a, T: numpy::Element + Copy + 'a>(
    py: Python<'_>,
    kept: &PyOnceLock<Py<PyArray2<T>>>,
    count: usize,
    row: impl Fn(usize) -> &'a [T],
) -> PyResult<Py<PyArray2<T>>> {
    let make = || -> PyResult<Py<PyArray2<T>>> {
        let values: Vec<T> = (0..count).flat_map(|at| row(at).iter().copied()).collect();
        let width = values.len().checked_div(count).unwrap_or(0);
        Ok(PyArray1::from_vec(py, values).reshape([count, width])?.unbind())
    };
    Ok(kept.get_or_try_init(py, make)?.clone_ref(py))
}

/// A part of an image whose map is above the threshold, in one piece; in pixels of the original image.
#[pyclass(name = "Region", module = "musc", frozen)]
pub struct PyRegion(Region);

#[pymethods]
impl PyRegion {
    /// The outer outline: x and y of at least 3 corners, clockwise. float64 [corners, 2].
    #[getter]
    fn polygon(&self, py: Python<'_>) -> PyResult<Py<PyArray2<f64>>> {
        rows(py, &PyOnceLock::new(), self.0.polygon.len(), |at| &self.0.polygon[at][..])
    }

    /// Left, top, width and height of the smallest box around it.
    #[getter]
    fn bounds(&self) -> (f64, f64, f64, f64) {
        let bounds = self.0.bounds;
        (bounds.x, bounds.y, bounds.width, bounds.height)
    }

    /// Its pixels, holes not counted.
    #[getter]
    fn area(&self) -> f64 {
        self.0.area
    }

    /// x and y of the largest value of the map in it, and that value.
    #[getter]
    fn peak(&self) -> (f64, f64, f32) {
        (self.0.peak.x, self.0.peak.y, self.0.peak.value)
    }

    /// The mean of the map over it.
    #[getter]
    fn mean(&self) -> f64 {
        self.0.mean
    }

    fn __repr__(&self) -> String {
        let (bounds, value) = (self.0.bounds, self.0.peak.value);
        format!(
            "<musc.Region at ({:.1}, {:.1}), {:.1} x {:.1} pixels, up to {value:.4}>",
            bounds.x, bounds.y, bounds.width, bounds.height
        )
    }
}
