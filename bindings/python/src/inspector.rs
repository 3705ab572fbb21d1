//! `musc.Inspector`.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use musc::Progress;
use musc::inspect::{Bank, Batch, Inspection, Part, Plan, ReferenceSet, StoreTerms};
use musc::scoring::decision::{DecisionRule, threshold};
use numpy::{PyArray2, PyArrayMethods, ToPyArray};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};

use crate::bank::PyBank;
use crate::batch::{About, batch};
use crate::error::{raise, wrong_value};
use crate::inspection::{Decided, PyInspection};
use crate::notebook::Pictures;
use crate::process::{self, Process};
use crate::progress::{run, run_on_pool};
use crate::settings::{self, Settings, count, counts};

/// The side to which images are resized where none is named, as in the program musc-run.
const USUAL_SIDE: usize = 518;

/// A backbone on a device, ready to find the defective ones among images. Takes names, paths and numbers only, and is pickled
/// by them; the weights of the default backbone, DINOv2 ViT-S/14, are inside the package.
///
/// Images are a folder, a pattern, a list file (.txt, or .csv with path,label[,mask]), paths, or uint8 arrays [H, W, 3] (red,
/// green, blue), also one array [N, H, W, 3]. Paths of files keep their order; folders, patterns and lists are sorted by path.
///
/// precision: the numbers of products. "auto" is f16 on a card; on the processor features in f32 and, where it has AVX512-BF16,
/// scoring in bf16, which moves a patch score by at most 2e-4 (with paper=True f32). "f32" is of the processor alone, "f16" of
/// cards alone, "bf16" (8 bits, features too) of both.
///
/// Everything runs on threads of its own, without the interpreter's lock, and Ctrl-C stops it.
#[pyclass(name = "Inspector", module = "musc", frozen)]
pub struct PyInspector {
    inner: musc::inspect::Inspector,
    settings: Settings,
    process: Process,
    /// The bank that was used last, on the device. Locked by threads without the interpreter's lock only.
    ready: Mutex<Option<(Arc<Bank>, Arc<ReferenceSet>)>>,
}

/// What images are compared with.
enum With {
    Each,
    Bank { bank: Arc<Bank>, each_other: bool },
    Images { batch: Batch, each_other: bool },
}

#[pymethods]
impl PyInspector {
    #[new]
    #[pyo3(
        signature = (
            backbone=Some("dinov2_vits14".into()), *, device="auto".into(), size=None, r=vec![1, 3, 5], weights=None,
            pretrained="openai".into(), activation="official".into(), layers=None, threads=0, precision="auto".into(),
            memory_limit=None, batch_size=0, cache=None, cache_bytes=None, keep_aspect=None, pad=false, tiles=None,
            tile_overlap=musc::inspect::USUAL_OVERLAP, match_tiles="same".into(), interval=(0.0, 0.3), radius=None,
            table_bytes=None, rescoring=true, k=None, similarity=None, subsets=None, divide=None, seed=0, paper=false,
            decide=None,
        ),
        text_signature = "(backbone='dinov2_vits14', *, device='auto', size=518, r=(1, 3, 5), weights=None, \
            pretrained='openai', activation='official', layers=None, threads=0, precision='auto', memory_limit=None, \
            batch_size=0, cache=None, cache_bytes=None, keep_aspect=None, pad=False, tiles=None, tile_overlap=0.1, \
            match_tiles='same', interval=(0.0, 0.3), radius=None, table_bytes=None, rescoring=True, k=None, \
            similarity=None, subsets='auto', divide=None, seed=0, paper=False, decide='gap')"
    )]
    #[expect(clippy::too_many_arguments, reason = "each is a keyword of the constructor")]
    fn new(
        py: Python<'_>,
        backbone: Option<String>,
        device: String,
        size: Option<Bound<'_, PyAny>>,
        r: Vec<i64>,
        weights: Option<PathBuf>,
        pretrained: String,
        activation: String,
        layers: Option<Vec<i64>>,
        threads: i64,
        precision: String,
        memory_limit: Option<i64>,
        batch_size: i64,
        cache: Option<PathBuf>,
        cache_bytes: Option<i64>,
        keep_aspect: Option<i64>,
        pad: bool,
        tiles: Option<Bound<'_, PyAny>>,
        tile_overlap: f64,
        match_tiles: String,
        interval: (f64, f64),
        radius: Option<i64>,
        table_bytes: Option<i64>,
        rescoring: bool,
        k: Option<Vec<i64>>,
        similarity: Option<String>,
        subsets: Option<Bound<'_, PyAny>>,
        divide: Option<i64>,
        seed: i64,
        paper: bool,
        decide: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Self> {
        let settings = Settings {
            backbone,
            weights,
            pretrained,
            activation,
            layers: layers.map(|layers| counts("layers", &layers)).transpose()?,
            device,
            threads: count("threads", threads)?,
            precision,
            memory_limit: memory_limit.map(|bytes| count("memory_limit", bytes)).transpose()?,
            batch_size: count("batch_size", batch_size)?,
            cache,
            cache_bytes: cache_bytes.map(|bytes| count("cache_bytes", bytes)).transpose()?,
            input: settings::input(size.as_ref(), keep_aspect, pad, USUAL_SIDE)?,
            tiles: settings::tiles(tiles.as_ref())?,
            tile_overlap,
            match_tiles,
            scoring: settings::scoring(&r, interval, radius, table_bytes)?,
            rescoring,
            k: k.map(|k| counts("k", &k)).transpose()?,
            similarity,
            subsets: settings::subsets(subsets.as_ref(), divide)?,
            seed: count("seed", seed)?,
            paper,
            decide: settings::rule(decide.as_ref())?,
        };
        let builder = settings.builder()?;
        // Weights are read in parallel before there is a device.
        let inner = run_on_pool(py, None, |_| builder.build())?;
        Ok(PyInspector { inner, settings, process: Process::this(), ready: Mutex::new(None) })
    }

    /// Scores images against each other, or against references.
    ///
    /// references: a Bank, or images that a bank is made of. Each image is compared with them alone, and decided on by their
    /// threshold; with each_other=True with them and with the other images.
    /// names: of arrays, in their order. labels: "from-folders" (images in folders good, normal or ok are normal, others
    /// defective) or a table (.csv: path,label). roi: what is looked at: a mask's file (white), a folder with one for each image,
    /// or a bool array [H, W] of the images' size. border: pixels at the edges that are not looked at. skip_bad: goes on without
    /// files that cannot be read. progress: called about ten times a second with the stage's name, the steps done and their
    /// number.
    #[pyo3(signature = (images, *, references=None, each_other=false, names=None, labels=None, roi=None, border=0, skip_bad=false, progress=None))]
    #[expect(clippy::too_many_arguments, reason = "each is a keyword of the method")]
    fn inspect(
        &self,
        py: Python<'_>,
        images: &Bound<'_, PyAny>,
        references: Option<&Bound<'_, PyAny>>,
        each_other: bool,
        names: Option<Vec<PathBuf>>,
        labels: Option<PathBuf>,
        roi: Option<&Bound<'_, PyAny>>,
        border: i64,
        skip_bad: bool,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<PyInspection> {
        self.process.check("this Inspector")?;
        let with = match references {
            None if each_other => {
                let expected = "references beside it";
                return Err(wrong_value("each_other", "True without references", expected));
            }
            None => With::Each,
            Some(bank) if bank.is_instance_of::<PyBank>() => {
                With::Bank { bank: bank.cast::<PyBank>()?.get().shared(), each_other }
            }
            Some(images) => {
                let about = About { roi, border, skip_bad, ..About::default() };
                let (batch, _) = batch(images, about)?;
                With::Images { batch: batch.named("references"), each_other }
            }
        };
        let (batch, of_files) = batch(images, About { names, labels, roi, border, skip_bad })?;
        self.score(py, batch, of_files, with, progress)
    }

    /// Compares each image with a bank alone, as if it were the only new one, and decides by the bank's threshold:
    /// `inspect(images, references=bank)`.
    #[pyo3(signature = (images, bank, *, names=None, roi=None, border=0, skip_bad=false, progress=None))]
    #[expect(clippy::too_many_arguments, reason = "each is a keyword of the method")]
    fn predict(
        &self,
        py: Python<'_>,
        images: &Bound<'_, PyAny>,
        bank: &Bound<'_, PyBank>,
        names: Option<Vec<PathBuf>>,
        roi: Option<&Bound<'_, PyAny>>,
        border: i64,
        skip_bad: bool,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<PyInspection> {
        self.process.check("this Inspector")?;
        let about = About { names, labels: None, roi, border, skip_bad };
        let (batch, of_files) = batch(images, about)?;
        let with = With::Bank { bank: bank.get().shared(), each_other: false };
        self.score(py, batch, of_files, with, progress)
    }

    /// A bank of images, known-good or earlier ones, to compare others with: their tokens in 16 bits, their raw scores
    /// against each other, and the threshold that the rule `decide` makes of them.
    #[pyo3(signature = (images, *, names=None, roi=None, border=0, skip_bad=false, progress=None))]
    #[expect(clippy::too_many_arguments, reason = "each is a keyword of the method")]
    fn bank(
        &self,
        py: Python<'_>,
        images: &Bound<'_, PyAny>,
        names: Option<Vec<PathBuf>>,
        roi: Option<&Bound<'_, PyAny>>,
        border: i64,
        skip_bad: bool,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<PyBank> {
        self.process.check("this Inspector")?;
        let (batch, _) = batch(images, About { names, labels: None, roi, border, skip_bad })?;
        let rule = own_rule(self.settings.decide);
        run(py, progress, |progress| self.inner.bank(&batch, rule, progress)).map(PyBank::new)
    }

    /// A bank with more images; those that it has already, by their pixels, are passed over.
    #[pyo3(signature = (bank, images, *, names=None, roi=None, border=0, skip_bad=false, progress=None))]
    #[expect(clippy::too_many_arguments, reason = "each is a keyword of the method")]
    fn add_to_bank(
        &self,
        py: Python<'_>,
        bank: &Bound<'_, PyBank>,
        images: &Bound<'_, PyAny>,
        names: Option<Vec<PathBuf>>,
        roi: Option<&Bound<'_, PyAny>>,
        border: i64,
        skip_bad: bool,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<PyBank> {
        self.process.check("this Inspector")?;
        let (batch, _) = batch(images, About { names, labels: None, roi, border, skip_bad })?;
        let bank = bank.get().shared();
        let add =
            |progress: &dyn Progress| self.inner.add_to_bank(Bank::clone(&bank), &batch, progress);
        run(py, progress, add).map(PyBank::new)
    }

    /// Several banks as one; of images that are in several, by their pixels, the first is kept.
    #[pyo3(signature = (banks, *, progress=None))]
    fn merge_banks(
        &self,
        py: Python<'_>,
        banks: Vec<Bound<'_, PyBank>>,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<PyBank> {
        self.process.check("this Inspector")?;
        let banks: Vec<Arc<Bank>> = banks.iter().map(|bank| bank.get().shared()).collect();
        let merge = |progress: &dyn Progress| {
            self.inner.merge_banks(banks.iter().map(|bank| Bank::clone(bank)).collect(), progress)
        };
        run(py, progress, merge).map(PyBank::new)
    }

    /// The number of parts that images are scored in: subsets of about 200 from 301 images on, or as `subsets` and `divide`
    /// say. Parts need nothing of each other, so workers can make them wherever they are: see `part` and `join`.
    #[pyo3(signature = (images, *, names=None, roi=None, border=0, skip_bad=false))]
    fn parts(
        &self,
        py: Python<'_>,
        images: &Bound<'_, PyAny>,
        names: Option<Vec<PathBuf>>,
        roi: Option<&Bound<'_, PyAny>>,
        border: i64,
        skip_bad: bool,
    ) -> PyResult<usize> {
        self.process.check("this Inspector")?;
        let (batch, _) = batch(images, About { names, labels: None, roi, border, skip_bad })?;
        run(py, None, |progress| self.inner.plan(&batch, progress)).map(|plan| plan.len())
    }

    /// Scores the part of a number from 0 of these images, as bytes for `join`.
    #[pyo3(signature = (images, part, *, names=None, roi=None, border=0, skip_bad=false, progress=None))]
    #[expect(clippy::too_many_arguments, reason = "each is a keyword of the method")]
    fn part<'py>(
        &self,
        py: Python<'py>,
        images: &Bound<'py, PyAny>,
        part: i64,
        names: Option<Vec<PathBuf>>,
        roi: Option<&Bound<'py, PyAny>>,
        border: i64,
        skip_bad: bool,
        progress: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyBytes>> {
        self.process.check("this Inspector")?;
        let part = count("part", part)?;
        let (batch, _) = batch(images, About { names, labels: None, roi, border, skip_bad })?;
        let bytes = run(py, progress, |progress| {
            let plan = self.inner.plan(&batch, progress)?;
            let job = self.job(&batch, &plan)?;
            self.inner.inspect_part(&batch, &plan, part, progress)?.to_bytes(&job)
        })?;
        Ok(PyBytes::new(py, &bytes))
    }

    /// What these images come to of all of their parts, in whatever order: what `inspect` gives, to the last bit. Parts of other
    /// images, or made with other settings, are refused; of the device they may differ.
    #[pyo3(signature = (images, parts, *, names=None, labels=None, roi=None, border=0, skip_bad=false, progress=None))]
    #[expect(clippy::too_many_arguments, reason = "each is a keyword of the method")]
    fn join(
        &self,
        py: Python<'_>,
        images: &Bound<'_, PyAny>,
        parts: Vec<Bound<'_, PyBytes>>,
        names: Option<Vec<PathBuf>>,
        labels: Option<PathBuf>,
        roi: Option<&Bound<'_, PyAny>>,
        border: i64,
        skip_bad: bool,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<PyInspection> {
        self.process.check("this Inspector")?;
        let (batch, of_files) = batch(images, About { names, labels, roi, border, skip_bad })?;
        let parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
        self.decided(py, batch, of_files, progress, |batch, progress| {
            let plan = self.inner.plan(batch, progress)?;
            let job = self.job(batch, &plan)?;
            let parts = parts.iter().map(|part| Part::of_bytes(part, &job));
            Ok((self.inner.join(batch, &plan, parts, progress)?, None))
        })
    }

    /// The features of images alone: patch tokens float32, a list with one [N, L, C] a feature layer, as `mutual_scores` takes
    /// them, and class tokens float32 [N, E].
    #[pyo3(signature = (images, *, skip_bad=false, progress=None))]
    fn features<'py>(
        &self,
        py: Python<'py>,
        images: &Bound<'py, PyAny>,
        skip_bad: bool,
        progress: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyTuple>> {
        self.process.check("this Inspector")?;
        let (batch, _) = batch(images, About { skip_bad, ..About::default() })?;
        let (found, _) = run(py, progress, |progress| self.inner.features(&batch, progress))?;
        let (images, patches, width) = (found.images, found.grid.patches(), found.width);
        let mut layers = Vec::with_capacity(found.tokens.len());
        for tokens in found.tokens {
            let tokens = numpy::PyArray1::from_vec(py, tokens);
            layers.push(tokens.reshape([images, patches, width])?);
        }
        let class_tokens: Bound<'py, PyArray2<f32>> =
            found.class_tokens.to_pyarray(py).reshape([images, found.class_width])?;
        (layers, class_tokens).into_pyobject(py)
    }

    /// The device and what it uses, in a line.
    #[getter]
    fn device(&self) -> &str {
        self.inner.device()
    }

    /// Why the device is another than the one that was named, or which one it became.
    #[getter]
    fn device_note(&self) -> Option<&str> {
        self.inner.device_note()
    }

    /// The backbone's name.
    #[getter]
    fn backbone(&self) -> &str {
        self.inner.backbone().name()
    }

    /// Where the weights came from: a path, or "built-in".
    #[getter]
    fn weights(&self) -> &str {
        self.inner.backbone().source()
    }

    /// The side of a patch in pixels: sides of `size` are multiples of it.
    #[getter]
    fn patch(&self) -> usize {
        self.inner.backbone().architecture().patch
    }

    /// The arguments that make an inspector like this one: `Inspector(**inspector.settings)`.
    #[getter]
    fn settings<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        self.settings.to_dict(py)
    }

    fn __reduce__<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        let py = slf.py();
        let keywords = slf.get().settings.to_dict(py)?;
        let make =
            py.import("functools")?.call_method("partial", (slf.get_type(),), Some(&keywords))?;
        (make, ()).into_pyobject(py)
    }

    fn __repr__(&self) -> String {
        format!("<musc.Inspector {} on {}>", self.inner.backbone().name(), self.inner.device())
    }
}

impl PyInspector {
    fn score(
        &self,
        py: Python<'_>,
        batch: Batch,
        of_files: bool,
        with: With,
        progress: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<PyInspection> {
        self.decided(py, batch, of_files, progress, |batch, progress| {
            self.compared(batch, with, progress)
        })
    }

    /// Scores a batch somehow, and decides.
    fn decided(
        &self,
        py: Python<'_>,
        batch: Batch,
        of_files: bool,
        progress: Option<&Bound<'_, PyAny>>,
        score: impl FnOnce(&Batch, &dyn Progress) -> musc::Result<(Inspection, Option<Arc<Bank>>)>
        + Send,
    ) -> PyResult<PyInspection> {
        let rule = self.settings.decide;
        if rule == DecisionRule::F1 {
            // Now, and not when all is scored.
            let labels: Vec<_> = batch.samples().iter().map(|sample| sample.label).collect();
            threshold(rule, &vec![0.0; labels.len()], &labels).map_err(raise)?;
        }
        let pool = process::pool()?;
        run(py, progress, |progress| {
            let (inspection, of_bank) = score(&batch, progress)?;
            pool.install(|| {
                let pictures = Pictures::of(batch, of_files, &inspection)?;
                Decided::new(Arc::new(inspection), rule, of_bank, Arc::new(pictures))
            })
        })
        .map(PyInspection::new)
    }

    /// What parts are of, for comparing; whoever joins them may be on another device.
    fn job(&self, batch: &Batch, plan: &Plan) -> musc::Result<String> {
        Ok(self.inner.store_terms(batch, plan)?.without(&StoreTerms::NUMBERS).job(plan.len()))
    }

    /// Scores a batch; and the bank it was compared with, where that was the only one. Without the interpreter's lock.
    fn compared(
        &self,
        batch: &Batch,
        with: With,
        progress: &dyn Progress,
    ) -> musc::Result<(Inspection, Option<Arc<Bank>>)> {
        let (bank, each_other, keep) = match with {
            With::Each => return Ok((self.inner.inspect(batch, progress)?, None)),
            With::Bank { bank, each_other } => (bank, each_other, true),
            With::Images { batch, each_other } => {
                let rule = own_rule(self.settings.decide);
                (Arc::new(self.inner.bank(&batch, rule, progress)?), each_other, false)
            }
        };
        if each_other {
            return Ok((self.inner.inspect_with(batch, &bank, progress)?, None));
        }
        let references = self.references(&bank, keep)?;
        Ok((self.inner.compare(batch, &references, progress)?, Some(bank)))
    }

    /// The references of a bank, made once for as long as the same bank is asked for. Without the interpreter's lock.
    fn references(&self, bank: &Arc<Bank>, keep: bool) -> musc::Result<Arc<ReferenceSet>> {
        if !keep {
            return Ok(Arc::new(self.inner.references(bank)?));
        }
        let mut ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, references)) = ready.as_ref()
            && Arc::ptr_eq(of, bank)
        {
            return Ok(Arc::clone(references));
        }
        // The one of another bank goes first: two would take twice the memory.
        *ready = None;
        let made = Arc::new(self.inner.references(bank)?);
        *ready = Some((Arc::clone(bank), Arc::clone(&made)));
        Ok(made)
    }
}

/// The rule where it looks at raw scores alone; any other says nothing of a bank.
fn own_rule(rule: DecisionRule) -> DecisionRule {
    if matches!(rule, DecisionRule::F1 | DecisionRule::Mebin) {
        DecisionRule::default()
    } else {
        rule
    }
}
