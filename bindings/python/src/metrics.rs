//! `musc.metrics`: figures against labels and masks.

use musc::Real;
use musc::metrics::{PixelMetrics, image_metrics, pixel_metrics_within};
use numpy::ndarray::{ArrayView, Ix3};
use numpy::{Ix1, PyUntypedArrayMethods};
use pyo3::prelude::*;

use crate::arrays;
use crate::error::{raise, wrong_type, wrong_value};
use crate::progress::run_on_pool;

/// AUROC, F1-max and AP of image scores; `None` where a class is missing.
type ImageFigures = (Option<f64>, Option<f64>, Option<f64>);
/// The same of pixels, and AUPRO.
type PixelFigures = (Option<f64>, Option<f64>, Option<f64>, Option<f64>);

/// AUROC, F1-max and AP of image scores: see `musc.metrics.image_level`.
#[pyfunction]
pub fn image_level(labels: &Bound<'_, PyAny>, scores: &Bound<'_, PyAny>) -> PyResult<ImageFigures> {
    let labels = arrays::labels("labels", labels)?;
    let scores = arrays::floats::<Ix1>("scores", scores, "numbers [N]")?;
    let found = image_metrics(&labels, &arrays::values(&scores.as_array())).map_err(raise)?;
    Ok((found.auroc, found.f1_max, found.ap))
}

/// AUROC, F1-max, AP and AUPRO of anomaly maps: see `musc.metrics.pixel_level`.
#[pyfunction]
#[pyo3(signature = (masks, maps, inside=None))]
pub fn pixel_level(
    py: Python<'_>,
    masks: &Bound<'_, PyAny>,
    maps: &Bound<'_, PyAny>,
    inside: Option<&Bound<'_, PyAny>>,
) -> PyResult<PixelFigures> {
    const MAPS: &str = "float32 or float64 [N, h, w]";
    const MASKS: &str = "bool or whole numbers [N, h, w], not 0 where a pixel is defective";
    let masks = arrays::truths::<Ix3>("masks", masks, MASKS)?;
    let inside = inside
        .map(|inside| arrays::truths::<Ix3>("inside", inside, "bool [N, h, w]"))
        .transpose()?;
    let shape = masks.as_array().dim();
    let of_inside = inside.as_ref().map_or(shape, |inside| inside.as_array().dim());
    let array = arrays::array("maps", maps)?;
    let single = arrays::typed::<f32, Ix3>("maps", &array, MAPS)?;
    let double = arrays::typed::<f64, Ix3>("maps", &array, MAPS)?;
    if single.is_none() && double.is_none() {
        return Err(wrong_type("maps", arrays::found(&array), MAPS));
    }
    let (n, h, w) = shape;
    let expected = format!("[{n}, {h}, {w}], as masks have");
    if array.shape() != [n, h, w] {
        return Err(wrong_value("maps", arrays::found(&array), &expected));
    }
    if of_inside != shape {
        return Err(wrong_value("inside", format!("{of_inside:?}"), &expected));
    }
    let (masks, inside) = (masks.as_array(), inside.as_ref().map(|inside| inside.as_array()));
    let (single, double) =
        (single.as_ref().map(|maps| maps.as_array()), double.as_ref().map(|maps| maps.as_array()));
    let found = run_on_pool(py, None, |_| {
        let masks: Vec<u8> = arrays::values(&masks).into_iter().map(u8::from).collect();
        let inside = inside.map(|inside| arrays::values(&inside)).unwrap_or_default();
        match (&single, &double) {
            (Some(maps), _) => figures(&masks, maps, &inside),
            (None, Some(maps)) => figures(&masks, maps, &inside),
            // Refused above.
            (None, None) => Ok(PixelMetrics::default()),
        }
    })?;
    Ok((found.auroc, found.f1_max, found.ap, found.aupro))
}

/// The figures of maps that are read as they lie where they are in one piece, else copied.
fn figures<T: Real>(
    masks: &[u8],
    maps: &ArrayView<'_, T, Ix3>,
    inside: &[bool],
) -> musc::Result<PixelMetrics> {
    let (n, h, w) = maps.dim();
    match maps.as_slice() {
        Some(maps) => pixel_metrics_within(masks, maps, inside, n, h, w),
        None => pixel_metrics_within(masks, &arrays::values(maps), inside, n, h, w),
    }
}
