//! How a program ends: what it says last, and its exit code.

use std::io::ErrorKind;
use std::process::ExitCode;

use clap::Parser;
use musc::Error;
use musc::model::{backbone, locate};

use super::interrupt;
use super::options::in_options;
use super::voice::warn;
use crate::args;

/// The exit code of an error that may pass: the same command may be tried again.
const MAY_PASS: u8 = 1;
/// The exit code of wrong usage or bad data: the same command would end the same way.
const WRONG: u8 = 2;
/// The exit code when parts are missing.
const INCOMPLETE: u8 = 3;
/// The exit code when an image is NG and that was asked for.
const DEFECTIVE: u8 = 4;
/// The exit code when a device gives other numbers than it has to.
const DIFFERS: u8 = 5;

/// Why a program ends early.
pub enum Stop {
    /// The options cannot be what the user meant.
    Usage(Error),
    /// The work failed, or was interrupted.
    Failed(Error),
    /// The work is done, and so many images are defective, which was to end the program so.
    Defective(usize),
    /// The work was interrupted, and this is how it goes on.
    Interrupted(&'static str),
    /// Others have to do their part first: what is missing.
    Incomplete(String),
    /// A device gives other numbers than it has to: what was found.
    Differs(String),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Stop::Failed(error)
    }
}

/// This process's arguments, or the exit code after help, the version or what is wrong with them.
pub fn parse<C: Parser>() -> Result<C, ExitCode> {
    C::try_parse_from(args::normalise(std::env::args_os())).map_err(|told| {
        // Help and version come this way too; nobody is left to hear of a failure to print them.
        let _ = told.print();
        ExitCode::from(u8::try_from(told.exit_code()).unwrap_or(2))
    })
}

/// Says how a program ended, and the code for it. `help` is said after wrong usage.
pub fn exit_code(done: Result<(), Stop>, help: &str) -> ExitCode {
    let (words, code) = last_words(done, help);
    if let Some(words) = words {
        warn(&words);
    }
    ExitCode::from(code)
}

/// What is said of how a program ended, if anything is, and the code for it.
pub fn last_words(done: Result<(), Stop>, help: &str) -> (Option<String>, u8) {
    let (words, code) = match done {
        Ok(()) => return (None, 0),
        Err(Stop::Defective(images)) => (format!("{images} NG"), DEFECTIVE),
        Err(Stop::Failed(Error::Interrupted)) => {
            ("interrupted; no unfinished file was left".into(), interrupt::code())
        }
        Err(Stop::Interrupted(how)) => (format!("interrupted; {how}"), interrupt::code()),
        Err(Stop::Failed(error)) => {
            let code = code_of(&error);
            let error = in_options(error);
            (format!("error: {error}{}", advice(&error)), code)
        }
        Err(Stop::Usage(error)) => (format!("error: {}\n\n{help}", in_options(error)), WRONG),
        Err(Stop::Differs(found)) => (format!("differs: {found}"), DIFFERS),
        Err(Stop::Incomplete(missing)) => (format!("incomplete: {missing}"), INCOMPLETE),
    };
    (Some(words), code)
}

/// The exit code of an error: whether it may pass, or would come again.
fn code_of(error: &Error) -> u8 {
    match error {
        Error::Io { source, .. } => match source.kind() {
            ErrorKind::NotFound
            | ErrorKind::PermissionDenied
            | ErrorKind::AlreadyExists
            | ErrorKind::NotADirectory
            | ErrorKind::IsADirectory
            | ErrorKind::ReadOnlyFilesystem
            | ErrorKind::InvalidInput
            | ErrorKind::InvalidData
            | ErrorKind::InvalidFilename => WRONG,
            // A full disk, a network that is away.
            _ => MAY_PASS,
        },
        Error::Exists { .. }
        | Error::Image { .. }
        | Error::BadImages { .. }
        | Error::Dataset { .. }
        | Error::Weights { .. }
        | Error::NoWeights { .. }
        | Error::Tensor { .. }
        | Error::Invalid { .. } => WRONG,
        // The network, the card, its memory.
        _ => MAY_PASS,
    }
}

/// What this program can do about an error of the library.
fn advice(error: &Error) -> String {
    match error {
        Error::BadImages { .. } => "\n\n--skip-bad goes on without them".into(),
        Error::Exists { .. } => {
            "\n\n--overwrite replaces it, another --output-dir keeps both".into()
        }
        Error::NoWeights { backbone, pretrained, places, pytorch } => {
            no_weights(backbone, pretrained, places, pytorch.as_deref())
        }
        Error::Weights { file, .. } if error.is_pytorch_file() => {
            format!("\n\nmusc-run weights convert {file} OUT.safetensors makes one of it")
        }
        _ => String::new(),
    }
}

/// How weights that are not here are got.
fn no_weights(
    name: &str,
    pretrained: &str,
    places: &[String],
    pytorch: Option<&std::path::Path>,
) -> String {
    let mut text = String::from("\n\nget them with\n    ");
    text.push_str(&download_command(name, pretrained));
    if let (Some(file), Some(place)) = (pytorch, places.first()) {
        text.push_str(&format!(
            "\nor make one of the PyTorch file that is in the cache with\n    musc-run weights convert {} {place}",
            file.display()
        ));
    }
    text.push_str("\nor name a file with --weights");
    text
}

/// The command that gets a backbone's weights.
pub fn download_command(name: &str, pretrained: &str) -> String {
    let only = backbone(name).is_ok_and(|known| known.pretrained.is_empty());
    let default = only || pretrained.is_empty() || pretrained == locate::DEFAULT_PRETRAINED;
    let set = if default { String::new() } else { format!(" --pretrained {pretrained}") };
    format!("musc-run weights download {name}{set}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_weights_are_told_with_the_command_that_gets_them() {
        let error = |name: &str, pretrained: &str, pytorch: Option<&str>| Error::NoWeights {
            backbone: name.into(),
            pretrained: pretrained.into(),
            places: vec![format!("weights/{name}.safetensors")],
            pytorch: pytorch.map(Into::into),
        };
        let said = advice(&error("ViT-B-16", "laion400m_e32", None));
        let command = "musc-run weights download ViT-B-16 --pretrained laion400m_e32\n";
        assert!(said.contains(command) && !said.contains("convert"), "{said}");
        let said = advice(&error("dinov2_vitl14", "", Some("cache/pytorch_model.bin")));
        assert!(said.contains("weights download dinov2_vitl14\n"), "{said}");
        let convert = "weights convert cache/pytorch_model.bin weights/dinov2_vitl14.safetensors\n";
        assert!(said.contains(convert), "{said}");
    }
}
