//! `musc-run weights`: which weights there are, where they are, what they are, and how they come here.

mod convert;
mod download;
mod list;
mod verify;

use musc::inspect::Weights;
use musc::model::locate::{self, DEFAULT_PRETRAINED};
use musc::model::{Backbone, backbone};
use musc::{Error, Result};

use crate::args::{WeightsCommand, WeightsNameArgs};
use crate::embedded::{BUILT_IN, weights_of};
use crate::shell::{Stop, out};

/// Runs one of the commands.
pub fn run(command: WeightsCommand) -> Result<(), Stop> {
    match command {
        WeightsCommand::List(args) => Ok(list::list(args)?),
        WeightsCommand::Path(args) => path(args),
        WeightsCommand::Verify(args) => verify::verify(args),
        WeightsCommand::Download(args) => download::download(args),
        WeightsCommand::Convert(args) => convert::convert(args),
    }
}

/// A backbone and its set of weights by their names; a set that the backbone does not have is wrong usage.
fn named(name: &str, pretrained: Option<String>) -> Result<(&'static Backbone, String), Stop> {
    let known = backbone(name).map_err(Stop::Usage)?;
    let given = pretrained.is_some();
    let pretrained = pretrained.unwrap_or_else(|| DEFAULT_PRETRAINED.into());
    if given && known.pretrained.is_empty() {
        let found = format!("{pretrained} for {name}");
        let expected = "nothing: there is only one set of these weights";
        return Err(Stop::Usage(Error::invalid("--pretrained", found, expected)));
    }
    locate::check_pretrained(known, &pretrained).map_err(Stop::Usage)?;
    Ok((known, pretrained))
}

/// `weights path`.
fn path(args: WeightsNameArgs) -> Result<(), Stop> {
    let (known, pretrained) = named(&args.name, args.pretrained)?;
    let (path, origin) = if let Weights::Static { .. } = weights_of(known.name) {
        (None, BUILT_IN)
    } else {
        let found = locate::find(known, &pretrained)?;
        (Some(found.path.display().to_string()), found.origin)
    };
    let json = args.messages.json.then(|| serde_json::json!({ "path": path, "origin": origin }));
    Ok(out::print_either(json, || format!("{}\n", path.as_deref().unwrap_or(origin)))?)
}
