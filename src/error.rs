//! The one error type of the crate.

use std::path::{Path, PathBuf};

/// Result of every fallible function of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong, each variant naming the file, the tensor or the option at fault.
///
/// Messages are lower case and read: what was attempted, what was found, what was expected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused an operation on a file or folder.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The verb: "read", "create", "write", "list".
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// There is something already where a file is to be written, and it is not to be replaced.
    #[error("{}: already there, and not to be replaced", path.display())]
    Exists {
        /// What is there.
        path: PathBuf,
    },
    /// A file is not an image that can be decoded.
    #[error("{}: not a readable image: {reason}", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// The decoder's reason, or what the content looks like.
        reason: String,
    },
    /// Several bad images, found before any work started.
    #[error("{}", list_bad_images(bad))]
    BadImages {
        /// Each file with its reason.
        bad: Vec<(PathBuf, String)>,
    },
    /// A data set, a list or a folder does not have the expected layout.
    #[error("{}: {reason}", path.display())]
    Dataset {
        /// The folder or file at fault.
        path: PathBuf,
        /// What was found and what was expected.
        reason: String,
    },
    /// A weight file does not fit: every missing, extra or misshapen tensor at once.
    #[error("{file}: {}", list_problems(problems))]
    Weights {
        /// The file's name, or "embedded weights".
        file: String,
        /// One line a problem.
        problems: Vec<String>,
    },
    /// No weights of a backbone are on this machine.
    #[error("{backbone}: no weights on this machine; looked for\n    {}", places.join("\n    "))]
    NoWeights {
        /// The backbone's name.
        backbone: String,
        /// The set of weights; empty where the backbone has only one.
        pretrained: String,
        /// Every place that was looked at, the first one where a file could be put.
        places: Vec<String>,
        /// A PyTorch file of the same weights, which could be made one of these.
        pytorch: Option<PathBuf>,
    },
    /// A tensor file (safetensors) lacks a tensor, or one has another shape or type than needed.
    #[error("{file}: tensor `{tensor}`: found {found}, expected {expected}")]
    Tensor {
        /// The file's name.
        file: String,
        /// The tensor's name.
        tensor: String,
        /// What the file holds.
        found: String,
        /// What is needed.
        expected: String,
    },
    /// A file did not come from the network, or not as it was announced.
    #[error("cannot get {url}: {reason}")]
    Download {
        /// Its address.
        url: String,
        /// The server's answer, the transport's reason, or what is wrong with what came.
        reason: String,
    },
    /// An argument or option outside what is allowed.
    #[error("{what}: found {found}, expected {expected}")]
    Invalid {
        /// The option or argument by its name.
        what: String,
        /// Its value.
        found: String,
        /// The allowed values.
        expected: String,
    },
    /// The device asked for is not there or cannot be used.
    #[error("device `{device}`: {reason}")]
    Device {
        /// The device as it was asked for.
        device: String,
        /// Why it cannot be used.
        reason: String,
    },
    /// A device has too little memory left.
    #[error("device `{device}`: no memory for {what}: need {}, have {}", mebibytes(*need), mebibytes(*have))]
    OutOfMemory {
        /// The device as it was asked for.
        device: String,
        /// What the memory was for.
        what: String,
        /// Bytes that were asked for.
        need: u64,
        /// Bytes that are left.
        have: u64,
    },
    /// A GPU kernel cannot be loaded, or was called with what it cannot do.
    #[error("kernel {kernel}: {reason}")]
    Kernel {
        /// The kernel's file or entry.
        kernel: String,
        /// What was found and what was expected, or the driver's reason.
        reason: String,
    },
    /// The user stopped the run (Ctrl-C).
    #[error("interrupted")]
    Interrupted,
}

/// What is said of a PyTorch file where safetensors were expected.
pub(crate) const PYTORCH_FILE: &str =
    "it is a PyTorch file (.pt, .pth, .bin), which has to be converted";

impl Error {
    /// Whether weights were refused because they are a PyTorch file: a program can say how it converts one.
    pub fn is_pytorch_file(&self) -> bool {
        matches!(self, Error::Weights { problems, .. } if problems.iter().any(|p| p.contains(PYTORCH_FILE)))
    }

    /// An I/O error with its verb and path: `.map_err(Error::io("read", path))`.
    #[doc(hidden)]
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Error::Io { action, path, source }
    }

    /// An argument outside its range.
    #[doc(hidden)]
    pub fn invalid(
        what: impl Into<String>,
        found: impl std::fmt::Display,
        expected: impl Into<String>,
    ) -> Self {
        Error::Invalid { what: what.into(), found: found.to_string(), expected: expected.into() }
    }
}

/// Bytes in MiB, so that a difference of one still shows.
fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB ({bytes} bytes)", bytes as f64 / f64::from(1 << 20))
}

fn list_problems(problems: &[String]) -> String {
    match problems {
        [one] => one.clone(),
        many => {
            let mut text = format!("{} problems", many.len());
            for problem in many {
                text.push_str("\n  - ");
                text.push_str(problem);
            }
            text
        }
    }
}

fn list_bad_images(bad: &[(PathBuf, String)]) -> String {
    let mut text = match bad.len() {
        1 => String::from("1 file is not a readable image"),
        count => format!("{count} files are not readable images"),
    };
    for (path, reason) in bad {
        text.push_str(&format!("\n  - {}: {reason}", path.display()));
    }
    text
}
