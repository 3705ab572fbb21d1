//! Arrays of whoever calls: NumPy's, and whatever hands over its memory by DLPack.

use musc::image::RgbImage;
use musc::{Error, Grid};
use numpy::ndarray::{ArrayView, Axis, Dimension, Ix1, Ix2, Ix3};
use numpy::{
    Element, PyArray, PyArrayDescrMethods, PyArrayMethods, PyReadonlyArray, PyUntypedArray,
    PyUntypedArrayMethods,
};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::IntoPyDict;

use crate::error::{wrong_type, wrong_value};

/// DLPack's number for memory that the processor reads.
const DLPACK_CPU: i64 = 1;

/// Whether something is an array, or can be read as one without being looked into.
pub fn is_array(value: &Bound<'_, PyAny>) -> PyResult<bool> {
    if value.is_instance_of::<PyUntypedArray>() {
        return Ok(true);
    }
    for name in ["__dlpack__", "__array_interface__", "__array__"] {
        if value.hasattr(name)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Something as NumPy's array: without a copy where it is one, or gives its memory by DLPack.
pub fn array<'py>(what: &str, value: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyUntypedArray>> {
    let numpy = || value.py().import("numpy");
    let array = if value.is_instance_of::<PyUntypedArray>() {
        value.clone()
    } else if value.hasattr("__dlpack__")? {
        let (device, _): (i64, Bound<'_, PyAny>) =
            value.call_method0("__dlpack_device__")?.extract()?;
        if device != DLPACK_CPU {
            let found = format!("memory of DLPack's device {device}");
            return Err(wrong_value(what, found, "memory of the processor (.cpu() copies to it)"));
        }
        numpy()?.call_method1("from_dlpack", (value,)).map_err(|reason| {
            let text = format!("{what}: cannot be taken by DLPack: {}", reason.value(value.py()));
            let error = PyValueError::new_err(text);
            error.set_cause(value.py(), Some(reason));
            error
        })?
    } else {
        numpy()?.call_method1("asarray", (value,))?
    };
    let array = array.cast_into::<PyUntypedArray>()?;
    if array.is_aligned() {
        return Ok(array);
    }
    Ok(numpy()?.call_method1("require", (array, value.py().None(), "A"))?.cast_into()?)
}

/// An array's type and shape in words.
pub fn found(array: &Bound<'_, PyUntypedArray>) -> String {
    format!("{} {:?}", array.dtype(), array.shape())
}

/// Reads an array of one type; `None` where it has another.
pub fn typed<'py, T: Element, D: Dimension>(
    what: &str,
    array: &Bound<'py, PyUntypedArray>,
    expected: &str,
) -> PyResult<Option<PyReadonlyArray<'py, T, D>>> {
    if !array.dtype().is_equiv_to(&numpy::dtype::<T>(array.py())) {
        return Ok(None);
    }
    if D::NDIM.is_some_and(|ndim| ndim != array.ndim()) {
        return Err(wrong_value(what, found(array), expected));
    }
    let array = array.cast::<PyArray<T, D>>().map_err(PyErr::from)?;
    let read = array.try_readonly();
    Ok(Some(read.map_err(|reason| PyValueError::new_err(format!("{what}: {reason}")))?))
}

/// The values of a view in their order, copied.
pub fn values<T: Copy, D: Dimension>(view: &ArrayView<'_, T, D>) -> Vec<T> {
    if let Some(slice) = view.as_slice() {
        return slice.to_vec();
    }
    let mut values = Vec::with_capacity(view.len());
    // Rows mostly are whole, as where a token is left out of each image.
    for row in view.rows() {
        match row.as_slice() {
            Some(row) => values.extend_from_slice(row),
            None => values.extend(row.iter().copied()),
        }
    }
    values
}

/// Numbers `[N]` or of another shape as float64, from a list or an array of any numbers.
pub fn floats<'py, D: Dimension>(
    what: &str,
    value: &Bound<'py, PyAny>,
    expected: &str,
) -> PyResult<PyReadonlyArray<'py, f64, D>> {
    numbers(what, value, ("iuf", "float64"), expected)
}

/// Numbers of one of some kinds, by NumPy's letters, as one type.
fn numbers<'py, T: Element, D: Dimension>(
    what: &str,
    value: &Bound<'py, PyAny>,
    (kinds, name): (&str, &str),
    expected: &str,
) -> PyResult<PyReadonlyArray<'py, T, D>> {
    let array = array(what, value)?;
    if !kinds.as_bytes().contains(&array.dtype().kind()) {
        return Err(wrong_type(what, found(&array), expected));
    }
    // Without a copy where it has this type already.
    let no_copy = [("copy", false)].into_py_dict(value.py())?;
    let wide = array.call_method("astype", (name,), Some(&no_copy))?;
    let wide = wide.cast_into::<PyUntypedArray>()?;
    let read = typed::<T, D>(what, &wide, expected)?;
    read.ok_or_else(|| wrong_type(what, found(&wide), expected))
}

/// Tokens `[N, E]` as float32, from float16 or float32.
pub fn tokens<'py>(
    what: &str,
    value: &Bound<'py, PyAny>,
    expected: &str,
) -> PyResult<PyReadonlyArray<'py, f32, Ix2>> {
    let array = array(what, value)?;
    if array.dtype().kind() != b'f' || array.dtype().itemsize() > 4 {
        return Err(wrong_type(what, found(&array), expected));
    }
    numbers(what, array.as_any(), ("f", "float32"), expected)
}

/// Labels `[N]`: truth values, or numbers 0 and 1.
pub fn labels(what: &str, value: &Bound<'_, PyAny>) -> PyResult<Vec<bool>> {
    const EXPECTED: &str = "one an image [N]: bool, or 0 (normal) and 1 (defective)";
    let numbers = numbers::<i64, Ix1>(what, value, ("biu", "int64"), EXPECTED)?;
    let numbers = numbers.as_array();
    if let Some(other) = numbers.iter().find(|number| !(0..=1).contains(*number)) {
        return Err(wrong_value(what, other, EXPECTED));
    }
    Ok(numbers.iter().map(|&number| number == 1).collect())
}

/// Truth values of a shape, from bool or from any numbers, of which 0 is false.
pub fn truths<'py, D: Dimension>(
    what: &str,
    value: &Bound<'py, PyAny>,
    expected: &str,
) -> PyResult<PyReadonlyArray<'py, bool, D>> {
    numbers(what, value, ("biu", "bool"), expected)
}

/// A picture `[H, W, 3]`, uint8, as the library has it; copied.
pub fn image(view: &ArrayView<'_, u8, Ix3>) -> musc::Result<RgbImage> {
    let (height, width, _) = view.dim();
    RgbImage::new(width, height, values(view))
}

/// Patch tokens of one feature layer, `[N, L, C]`, where they lie.
pub enum Tokens<'a> {
    /// float32.
    Single(ArrayView<'a, f32, Ix3>),
    /// float16.
    Half(ArrayView<'a, half::f16, Ix3>),
}

impl Tokens<'_> {
    /// N, L and C.
    pub fn shape(&self) -> (usize, usize, usize) {
        match self {
            Tokens::Single(view) => view.dim(),
            Tokens::Half(view) => view.dim(),
        }
    }

    /// All of them in f32, copied.
    pub fn to_f32(&self) -> Vec<f32> {
        match self {
            Tokens::Single(view) => values(view),
            Tokens::Half(view) => values(view).into_iter().map(half::f16::to_f32).collect(),
        }
    }
}

/// The arrays of some layers, kept while [`Tokens`] look into them.
pub enum Layers<'py> {
    /// One array `[layers, N, L, C]`.
    Single(Vec<PyReadonlyArray<'py, f32, numpy::IxDyn>>),
    /// The same in float16.
    Half(Vec<PyReadonlyArray<'py, half::f16, numpy::IxDyn>>),
}

const LAYERS: &str =
    "float32 or float16 [layers, N, L, C], or a list of [N, L, C], one a feature layer";

impl<'py> Layers<'py> {
    /// Takes one array of all layers, one of a single layer `[N, L, C]`, or a sequence with one a layer.
    pub fn of(what: &str, value: &Bound<'py, PyAny>) -> PyResult<Self> {
        let parts: Vec<Bound<'py, PyUntypedArray>> = if is_array(value)? {
            vec![array(what, value)?]
        } else if let Ok(items) = value.try_iter() {
            let parts = items.enumerate().map(|(at, item)| array(&format!("{what}[{at}]"), &item?));
            parts.collect::<PyResult<_>>()?
        } else {
            return Err(wrong_type(what, value.get_type().name()?, LAYERS));
        };
        let Some(first) = parts.first() else {
            return Err(wrong_value(what, "no layer", LAYERS));
        };
        let whole = is_array(value)?;
        for (at, part) in parts.iter().enumerate() {
            let name = if whole { what.to_string() } else { format!("{what}[{at}]") };
            let fits = part.ndim() == 3 || (whole && part.ndim() == 4);
            if !fits || part.shape().contains(&0) {
                return Err(wrong_value(&name, found(part), LAYERS));
            }
            if !part.dtype().is_equiv_to(&first.dtype()) || part.shape() != first.shape() {
                let expected = format!("{}, as the first layer has", found(first));
                return Err(wrong_value(&name, found(part), &expected));
            }
        }
        if let Some(parts) = read(what, &parts)? {
            return Ok(Layers::Single(parts));
        }
        match read(what, &parts)? {
            Some(parts) => Ok(Layers::Half(parts)),
            None => Err(wrong_type(what, found(first), LAYERS)),
        }
    }

    /// The tokens of each layer.
    pub fn tokens(&self) -> Vec<Tokens<'_>> {
        match self {
            Layers::Single(parts) => parts.iter().flat_map(views).map(Tokens::Single).collect(),
            Layers::Half(parts) => parts.iter().flat_map(views).map(Tokens::Half).collect(),
        }
    }
}

fn read<'py, T: Element>(
    what: &str,
    parts: &[Bound<'py, PyUntypedArray>],
) -> PyResult<Option<Vec<PyReadonlyArray<'py, T, numpy::IxDyn>>>> {
    parts.iter().map(|part| typed(what, part, LAYERS)).collect()
}

/// An array of three or four sides as one of three for each layer.
fn views<'a, T: Element>(
    part: &'a PyReadonlyArray<'_, T, numpy::IxDyn>,
) -> Vec<ArrayView<'a, T, Ix3>> {
    let view = part.as_array();
    let layers: Vec<ArrayView<'a, T, numpy::IxDyn>> = if view.ndim() == 4 {
        (0..view.len_of(Axis(0))).map(|at| view.clone().index_axis_move(Axis(0), at)).collect()
    } else {
        vec![view]
    };
    layers.into_iter().filter_map(|layer| layer.into_dimensionality::<Ix3>().ok()).collect()
}

/// The grid of so many patches: the one that is asked for, or the square one.
pub fn grid(asked: Option<(i64, i64)>, patches: usize) -> musc::Result<Grid> {
    let Some((rows, columns)) = asked else {
        return Grid::of_square(patches).ok_or_else(|| {
            let found = format!("none, and {patches} patches, which are no square");
            Error::invalid("grid", found, "grid=(rows, columns)")
        });
    };
    let side = |side: i64| usize::try_from(side).unwrap_or(0);
    let grid = Grid::new(side(rows), side(columns));
    if grid.rows.checked_mul(grid.columns) == Some(patches) && patches > 0 {
        return Ok(grid);
    }
    let expected = format!("rows and columns of the {patches} patches of an image");
    Err(Error::invalid("grid", format!("({rows}, {columns})"), expected))
}
