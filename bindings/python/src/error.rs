//! The library's errors as Python's exceptions.

use std::io::ErrorKind;

use pyo3::PyErr;
use pyo3::create_exception;
use pyo3::exceptions::{
    PyException, PyFileExistsError, PyFileNotFoundError, PyIsADirectoryError, PyKeyboardInterrupt,
    PyMemoryError, PyOSError, PyPermissionError, PyTypeError, PyValueError,
};

create_exception!(
    musc,
    Error,
    PyException,
    "What none of Python's own exceptions stands for: a device that is not there, or a kernel that cannot be used."
);

/// The exception that stands for an error.
pub fn raise(error: musc::Error) -> PyErr {
    use musc::Error as Of;
    let text = error.to_string();
    match error {
        Of::Io { source, .. } => of_kind(source.kind(), text),
        Of::Exists { .. } => PyFileExistsError::new_err(text),
        // An image in memory has a name that is no path: what is not there is told by the reason.
        Of::Dataset { reason, .. } if reason.starts_with("no such") => {
            PyFileNotFoundError::new_err(text)
        }
        Of::NoWeights { backbone, pretrained, .. } => {
            PyFileNotFoundError::new_err(text + &how_to_get(&backbone, &pretrained))
        }
        Of::Weights { ref file, .. } if error.is_pytorch_file() => PyValueError::new_err(format!(
            "{text}\nthe program musc-run makes one of it: musc-run weights convert {file} OUT.safetensors"
        )),
        Of::Image { .. }
        | Of::BadImages { .. }
        | Of::Dataset { .. }
        | Of::Weights { .. }
        | Of::Tensor { .. }
        | Of::Invalid { .. } => PyValueError::new_err(text),
        Of::Download { .. } => PyOSError::new_err(text),
        Of::OutOfMemory { .. } => PyMemoryError::new_err(text),
        Of::Interrupted => PyKeyboardInterrupt::new_err(()),
        _ => Error::new_err(text),
    }
}

/// An argument that is outside what is allowed.
pub fn wrong_value(what: &str, found: impl std::fmt::Display, expected: &str) -> PyErr {
    PyValueError::new_err(format!("{what}: found {found}, expected {expected}"))
}

/// An argument of another type than is allowed.
pub fn wrong_type(what: &str, found: impl std::fmt::Display, expected: &str) -> PyErr {
    PyTypeError::new_err(format!("{what}: found {found}, expected {expected}"))
}

fn of_kind(kind: ErrorKind, text: String) -> PyErr {
    match kind {
        ErrorKind::NotFound => PyFileNotFoundError::new_err(text),
        ErrorKind::AlreadyExists => PyFileExistsError::new_err(text),
        ErrorKind::PermissionDenied => PyPermissionError::new_err(text),
        ErrorKind::IsADirectory => PyIsADirectoryError::new_err(text),
        ErrorKind::OutOfMemory => PyMemoryError::new_err(text),
        _ => PyOSError::new_err(text),
    }
}

/// How weights that are not here are got.
fn how_to_get(backbone: &str, pretrained: &str) -> String {
    let set = match pretrained {
        "" => String::new(),
        set => format!(", pretrained=\"{set}\""),
    };
    format!(
        "\nget them with musc.download_weights(\"{backbone}\"{set}), or name a file: musc.Inspector(\"{backbone}\", weights=...)"
    )
}
