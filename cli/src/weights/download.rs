//! `musc-run weights download`: the first published file of a backbone into the cache of the Hugging Face Hub.

use musc::model::hub::Hub;
use musc::model::{Published, Vit};
use musc::{Error, Result};

use super::named;
use crate::args::WeightsNameArgs;
use crate::shell::voice::Voice;
use crate::shell::{Stop, out};

/// Runs the command.
pub fn download(args: WeightsNameArgs) -> Result<(), Stop> {
    let (known, pretrained) = named(&args.name, args.pretrained)?;
    let row = Published::of(known.name, &pretrained).next().ok_or_else(|| {
        Stop::Usage(Error::invalid("backbone", known.name, "one whose weights are published"))
    })?;
    let voice = Voice::new(args.messages.quiet);
    let hub = Hub::of_environment().map_err(Stop::Usage)?;
    let path = match hub.cache().find(row.repository, row.file) {
        Some(path) if hub.is_offline() => path,
        _ => {
            let remote = hub.look_up(row.repository, row.file)?;
            voice.say(&format!(
                "{} of {}: {} MB",
                row.file,
                row.repository,
                remote.bytes.div_ceil(1_000_000)
            ));
            hub.fetch(&remote, &voice.teller()).map_err(|reason| match reason {
                Error::Interrupted => {
                    Stop::Interrupted("what came is kept, and the same command goes on from there")
                }
                other => Stop::Failed(other),
            })?
        }
    };
    // What came is what was published; whether that is this backbone only its tensors say.
    let vit = Vit::open(&path)?;
    vit.check_backbone(known)?;
    let command = match row.pretrained {
        "" => format!("--backbone_name {}", known.name),
        set => format!("--backbone_name {} --pretrained {set}", known.name),
    };
    voice.say(&format!("runs find it by themselves: musc-run PATH {command}"));
    let json = args.messages.json.then(|| {
        serde_json::json!({
            "path": path.display().to_string(),
            "repository": row.repository,
            "scheme": vit.scheme().letter().to_string(),
            "licence": row.licence,
        })
    });
    Ok(out::print_either(json, || format!("{}\n", path.display()))?)
}
