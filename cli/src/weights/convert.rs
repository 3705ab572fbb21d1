//! `musc-run weights convert`: a PyTorch file to safetensors, checked to be weights of a backbone before it gets its name.

use musc::model::pickle::TorchFile;
use musc::model::{Vit, sha256_of_file};
use musc::progress::go_on;
use musc::report::write_checked_file;
use musc::{Error, Result};
use serde_json::json;

use super::verify;
use crate::args::WeightsConvertArgs;
use crate::run::config::may_write;
use crate::shell::voice::Voice;
use crate::shell::{Stop, out};

/// Entries that are named as left out.
const SHOWN: usize = 8;

/// Runs the command.
pub fn convert(args: WeightsConvertArgs) -> Result<(), Stop> {
    may_write(&args.output, args.overwrite).map_err(Stop::Usage)?;
    let voice = Voice::new(args.messages.quiet);
    let teller = voice.teller();
    let file = TorchFile::open(&args.input)?;
    let state = file.state_dict(args.key.as_deref())?;
    let input = args.input.display().to_string();
    let vit = write_checked_file(
        &args.output,
        |writer| state.write_safetensors(writer),
        |aside| {
            go_on(&teller)?;
            // The message is about the file that the user has, not about the one in the making.
            Vit::open(aside).map_err(|reason| match reason {
                Error::Weights { problems, .. } => Error::Weights { file: input.clone(), problems },
                other => other,
            })
        },
    )?;
    if !state.key.is_empty() {
        voice.say(&format!("took the tensors under the key `{}`", state.key.escape_debug()));
    }
    if !state.left_out.is_empty() {
        let names = state.left_out.iter().take(SHOWN);
        let shown: Vec<String> = names.map(|name| name.escape_debug().to_string()).collect();
        let more = if state.left_out.len() > SHOWN { ", …" } else { "" };
        voice.say(&format!("left out what is no tensor: {}{more}", shown.join(", ")));
    }
    if state.rounded() > 0 {
        voice.say(&format!("rounded {} tensors from f64 to f32", state.rounded()));
    }
    let output = args.output.display().to_string();
    if !args.messages.json {
        return Ok(out::print(&format!(
            "file          {output}\ntensors       {}\n{}",
            state.tensors.len(),
            verify::facts(&vit)
        ))?);
    }
    let mut document = verify::document(&vit, &sha256_of_file(&args.output)?);
    if let Some(document) = document.as_object_mut() {
        document.insert("file".into(), json!(output));
        document.insert("key".into(), json!(state.key));
        document.insert("tensors".into(), json!(state.tensors.len()));
        document.insert("left_out".into(), json!(state.left_out));
        document.insert("rounded".into(), json!(state.rounded()));
    }
    Ok(out::print_json(&document)?)
}
